"""The sentence encoder: length-sorted, token-budget batches through a sentence-transformers model."""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from pipeline.config import Embed
from pipeline.identity import MINILM, Identity, has_cuda, identify, locate

__all__ = ["Encoder", "Identity", "identify", "load"]

log = logging.getLogger(__name__)

PAD_MULTIPLE = 16  # few distinct lengths: the bfloat16 kernels are compiled once a shape
CPU_BATCH_TOKENS = 4_096  # larger batches fall out of the processor's cache
HEAD_CHARACTERS = 8  # a token: enough of a long text to fill its tokens, nearly always

_encoders: dict[Embed, "Encoder"] = {}
_loading = threading.Lock()


def load(config: Embed) -> "Encoder":
    """The encoder of this config; the process holds one, and any thread may use it.

    Raises:
        UserError: see `identify`; or the model is not a transformer with a fast tokenizer, or reads fewer tokens than `max_tokens`.
    """
    with _loading:
        if config not in _encoders:
            _encoders[config] = _load(config, identify(config))
        return _encoders[config]


def _load(config: Embed, identity: Identity) -> "Encoder":
    import torch  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    device = "cuda" if has_cuda() else "cpu"
    with_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = SentenceTransformer(str(locate(config.model)), device=device, local_files_only=True).eval()
    finally:
        if with_bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    transformer: Any = model.transformers_model
    if transformer is None or not getattr(model.tokenizer, "is_fast", False):
        raise UserError(f"embed.model {config.model}: not a transformer with a fast tokenizer; choose another, e.g. {MINILM[0]}")
    longest = getattr(transformer.config, "max_position_embeddings", config.max_tokens)
    if config.max_tokens > longest:
        raise UserError(f"embed.max_tokens {config.max_tokens}: {config.model} reads at most {longest}; set a smaller one")
    dimension = model.get_embedding_dimension()
    if dimension != identity.dimension:
        raise UserError(f"embed.model {config.model}: its config files say {identity.dimension} dimensions, the model gives {dimension}")
    if identity.precision == "bfloat16":
        transformer.to(torch.bfloat16)  # the layers after it (pooling, normalising) stay in float32
    log.info("encoder %s on %s in %s, %d threads", config.model, device, identity.precision, torch.get_num_threads())
    return Encoder(identity, model, device, config.batch_tokens, longest)


@dataclass
class Encoder:
    """A loaded model. Two threads overlap: one turns text into tokens while the other's batches are in the model."""

    identity: Identity
    model: Any  # sentence_transformers.SentenceTransformer
    device: str
    batch_tokens: int
    longest: int  # tokens that the model can read
    _tokenizing: threading.Lock = field(default_factory=threading.Lock)
    _embedding: threading.Lock = field(default_factory=threading.Lock)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "documents dim"]:
        """Embeddings of unit length, float32, in the order of `texts`. Texts are cut after `max_tokens` tokens.

        Raises:
            RuntimeError: the model gave an embedding that is not a finite direction.
        """
        with self._tokenizing:
            tokens = self._tokenize(texts)
        order = np.argsort([-len(ids) for ids in tokens], kind="stable")  # longest first: too large a batch fails at once
        result = np.zeros((len(texts), self.identity.dimension), np.float32)
        with self._embedding:
            for chosen, length in self._batches(order, tokens):
                result[chosen] = self._embed([tokens[i] for i in chosen], length)
        norms = np.linalg.norm(result, axis=1, keepdims=True)
        faulty = np.flatnonzero(~(np.isfinite(norms) & (norms > 1e-6)))
        if len(faulty):
            raise RuntimeError(
                f"{self.identity.model}: no usable embedding of {len(faulty)} of {len(texts)} texts, the first is number {faulty[0]}"
            )
        unit: Float[np.ndarray, "documents dim"] = result / norms
        return unit

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with the special ones, at most `max_tokens`.

        Only the head of a long text is read, cut between words; where that does not fill the tokens, the whole.
        """
        limit = self.identity.max_tokens
        prompt = self.model.prompts.get(self.model.default_prompt_name, "") if self.model.default_prompt_name else ""
        texts = [prompt + text for text in texts]
        heads = [text[: _head(text, limit * HEAD_CHARACTERS)] for text in texts]
        tokens = self._ids(heads)
        short = [i for i, ids in enumerate(tokens) if len(ids) < limit and len(heads[i]) < len(texts[i])]
        for i, ids in zip(short, self._ids([texts[i] for i in short]), strict=True):
            tokens[i] = ids
        return tokens

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        # stated anew at each call: what tokenizer.json says of truncation and padding must not count
        ids: list[list[int]] = self.model.tokenizer(texts, truncation=True, max_length=self.identity.max_tokens, padding=False)["input_ids"]
        return ids

    def _batches(self, order: Int[np.ndarray, " n"], tokens: list[list[int]]) -> Iterator[tuple[Int[np.ndarray, " batch"], int]]:
        """Rows of each batch and the length it is padded to; all batches of one length have one size, but the last."""
        first = 0
        while first < len(order):
            needed = len(tokens[order[first]])
            length = max(needed, min(-(-needed // PAD_MULTIPLE) * PAD_MULTIPLE, self.longest))
            budget = min(self.batch_tokens, CPU_BATCH_TOKENS) if self.device == "cpu" else self.batch_tokens
            size = max(budget // length, 1)
            yield order[first : first + size], length
            first += size

    def _embed(self, tokens: list[list[int]], length: int) -> Float[np.ndarray, "documents dim"]:
        import torch  # noqa: PLC0415

        try:
            return self._forward(tokens, length)
        except torch.OutOfMemoryError:
            if len(tokens) == 1:
                raise
        self.batch_tokens = max(len(tokens) * length // 2, length)
        log.warning("out of GPU memory: batches of %d tokens from here on", self.batch_tokens)
        torch.cuda.empty_cache()
        half = len(tokens) // 2
        return np.concatenate([self._embed(tokens[:half], length), self._embed(tokens[half:], length)])

    def _forward(self, tokens: list[list[int]], length: int) -> Float[np.ndarray, "documents dim"]:
        import torch  # noqa: PLC0415

        tokenizer = self.model.tokenizer
        ids = np.full((len(tokens), length), tokenizer.pad_token_id or 0, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(tokens):
            place = slice(length - len(row), length) if tokenizer.padding_side == "left" else slice(len(row))
            ids[i, place] = row
            mask[i, place] = 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in tokenizer.model_input_names:
            arrays["token_type_ids"] = np.zeros_like(ids)
        features: dict[str, Any] = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
        features["modality"] = "text"
        with torch.inference_mode():
            first, *others = self.model
            features = first(features)
            features["token_embeddings"] = features["token_embeddings"].float()
            for module in others:
                features = module(features)
            embeddings = features["sentence_embedding"]
            array: Float[np.ndarray, "documents dim"] = embeddings.float().cpu().numpy()
        return array


def _head(text: str, characters: int) -> int:
    """Where to cut a text longer than `characters`: at its last space before that, or nowhere."""
    if len(text) <= characters:
        return len(text)
    space = text.rfind(" ", 0, characters)
    return space if space > 0 else len(text)
