"""The sentence encoder: batches of similar length through copies of a model.

Batches have a budget of tokens, and tokenization runs ahead of the model.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np
from jaxtyping import Float, Float32, Int64

from data_catalog.format.encoder_identity import Identity
from pipeline.config import Embed
from pipeline.embed.backends.model import EncoderModel, load_models
from pipeline.embed.identity import identify, locate_model
from pipeline.embed.windows import WindowReader, Windows, make_window_reader

logger = logging.getLogger(__name__)

_PAD_MULTIPLE = 16  # few distinct lengths, because bfloat16 kernels are compiled per shape
ENCODE_DOCUMENTS = 8_192  # texts per call of one copy of the model in `encode`
MINIMUM_NORM = 1e-6  # a shorter vector has no direction
_BATCHES_AHEAD = 2  # batches running on a GPU at once
_Wait = Callable[[], Float32[np.ndarray, "batch dim"]]

_encoders: dict[Embed, "Encoder"] = {}
_loading = threading.Lock()


def check_encoder(config: Embed) -> Identity:
    """Check the encoder of this config without loading its weights, and return its identity.

    Raises:
        UserError: See `load_encoder`.
    """
    identity = identify(config)
    _window_reader(config, identity)
    return identity


def load_encoder(config: Embed) -> "Encoder":
    """Return the encoder of this config. A process holds one, and any thread may use it.

    Raises:
        UserError: `identify` rejects the model, it is not a transformer with a fast tokenizer, or
            it reads fewer tokens than `max_tokens`.
    """
    with _loading:
        if config not in _encoders:
            identity = identify(config)
            models = load_models(identity, locate_model(config.model), config.batch_tokens)
            _encoders[config] = Encoder(identity, _window_reader(config, identity), models)
        return _encoders[config]


@dataclass
class Encoder:
    """A tokenizer and one copy of the model per device.

    Threads share them. Each copy, and the tokenizer, serves one thread at a time.
    """

    identity: Identity
    reader: WindowReader
    models: Sequence[EncoderModel]
    _idle: SimpleQueue[EncoderModel] = field(default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        for model in self.models:
            self._idle.put(model)

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "documents dim"]:
        """Return embeddings of unit norm, in the order of `texts`.

        Each is the model's embedding of the text's first `max_tokens` tokens. With `windows` above
        1, it is the mean direction of the embeddings of the text's first windows of that length.

        A row is NaN if its text has no embedding: the tokenizer refuses the text, or the model
        gives a vector that is zero or not finite for one of its windows.
        """
        chunks = (
            texts[first : first + ENCODE_DOCUMENTS]
            for first in range(0, len(texts), ENCODE_DOCUMENTS)
        )
        return np.concatenate(
            [np.zeros((0, self.identity.dimension), np.float32), *self.encode_chunks(chunks)]
        )

    def encode_chunks(
        self, chunks: Iterable[Sequence[str]]
    ) -> Iterator[Float32[np.ndarray, "documents dim"]]:
        """Yield the result of `encode` for each chunk of texts, in order.

        The next chunk is read and tokenized while the models work. Chunks go to the copies of the
        model as these become free. At most two more chunks than copies are in memory. Batches are
        sorted by length inside a chunk, so large chunks waste less.
        """
        source = iter(chunks)

        def next_windows() -> Windows | None:
            texts = next(source, None)
            return None if texts is None else self.reader.read(texts)

        waiting: deque[Future[Float32[np.ndarray, "documents dim"]]] = deque()
        copies = len(self.models)
        with (
            ThreadPoolExecutor(1, "tokenize") as ahead,
            ThreadPoolExecutor(copies, "embed") as workers,
        ):
            upcoming = ahead.submit(next_windows)
            while (windows := upcoming.result()) is not None:
                upcoming = ahead.submit(next_windows)
                waiting.append(workers.submit(self._embed, windows))
                if len(waiting) > copies:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _embed(self, windows: Windows) -> Float32[np.ndarray, "documents dim"]:
        model = self._idle.get()
        try:
            rows = np.zeros((len(windows.ids), self.identity.dimension), np.float32)
            started: deque[tuple[Int64[np.ndarray, " batch"], _Wait]] = deque()
            for chosen, length in self._batches(windows.lengths, model):
                if len(started) == _BATCHES_AHEAD:
                    _finish(rows, *started.popleft())
                started.append(
                    (chosen, self._start(model, [windows.ids[i] for i in chosen], length))
                )
            for batch in started:
                _finish(rows, *batch)
        finally:
            self._idle.put(model)
        units = _unit(rows)
        embeddings = np.full((windows.documents, units.shape[1]), np.nan, np.float32)
        if self.identity.windows == 1:
            embeddings[windows.document] = units
        elif len(units):
            first = np.flatnonzero(np.diff(windows.document, prepend=-1))
            embeddings[windows.document[first]] = _unit(np.add.reduceat(units, first))
        return embeddings

    def _batches(
        self, lengths: Int64[np.ndarray, " n"], model: EncoderModel
    ) -> Iterator[tuple[Int64[np.ndarray, " batch"], int]]:
        """Yield the rows of each batch and the length that it is padded to.

        All batches of one length have the same size, except the last. The longest come first, so
        that too large a batch fails at once.
        """
        order = np.argsort(-lengths, kind="stable")
        first = 0
        while first < len(order):
            needed = int(lengths[order[first]])
            length = max(
                needed, min(-(-needed // _PAD_MULTIPLE) * _PAD_MULTIPLE, self.reader.longest), 1
            )
            size = max(model.batch_tokens // length, 1)
            yield order[first : first + size], length
            first += size

    def _start(self, model: EncoderModel, rows: list[list[int]], length: int) -> _Wait:
        try:
            return model.start(*self.reader.pad(rows, length))
        except MemoryError:
            if len(rows) == 1:
                raise
        model.batch_tokens = max(len(rows) * length // 2, length)
        logger.warning(
            "%s: out of memory. Batches have %d tokens from now on.",
            model.device,
            model.batch_tokens,
        )
        half = len(rows) // 2
        first, second = (
            self._start(model, rows[:half], length),
            self._start(model, rows[half:], length),
        )
        return lambda: np.concatenate([first(), second()])


def _window_reader(config: Embed, identity: Identity) -> WindowReader:
    folder = locate_model(config.model)
    return make_window_reader(config.model, folder, identity.max_tokens, identity.windows)


def _unit(rows: Float[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n dim"]:
    """Return the rows at unit norm. A row that is zero or not finite becomes NaN."""
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are what is looked for
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        usable = np.isfinite(norms) & (norms > MINIMUM_NORM)
        units: Float32[np.ndarray, "n dim"] = np.where(
            usable, rows / np.where(usable, norms, 1), np.nan
        )
    return units.astype(np.float32)


def _finish(
    rows: Float32[np.ndarray, "n dim"], chosen: Int64[np.ndarray, " batch"], wait: _Wait
) -> None:
    rows[chosen] = wait()
