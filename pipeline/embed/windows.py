"""Texts as token ids for the encoder: each document's first window, or its first few."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from data_catalog.errors import UserError, first_line
from pipeline.embed.model_folder import model_config, read_model_json
from pipeline.refusals import or_none

HEAD_CHARACTERS_PER_TOKEN = 8  # nearly always enough to fill the windows
MAXIMUM_CHARACTERS = 2**20  # read of a text, however few tokens they give: one word can be longer
# Part of max_position_embeddings that tokens cannot use, by model_type.
RESERVED_POSITIONS = {"camembert": 2, "mpnet": 2, "roberta": 2, "xlm-roberta": 2}


@dataclass(frozen=True)
class Windows:
    """Token ids, including special tokens, of every window of some documents, in order.

    A document that the tokenizer refuses has no window.
    """

    ids: list[list[int]]
    document: Int64[np.ndarray, " windows"]  # document of each window
    documents: int

    @property
    def lengths(self) -> Int64[np.ndarray, " windows"]:
        return np.fromiter(map(len, self.ids), np.int64, len(self.ids))


@dataclass(frozen=True)
class WindowReader:
    """A fast tokenizer, used by one thread at a time, because setting its truncation changes it."""

    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    prompt: str  # default prompt of the model, which precedes every text
    max_tokens: int  # per window, including special tokens
    windows: int  # maximum number per document
    longest: int  # maximum number of tokens of the model
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, texts: Sequence[str]) -> Windows:
        """Return the first `windows` windows of each text, at least one.

        Only the head of a long text is tokenized, cut between words. If it does not fill the
        windows, its first `MAXIMUM_CHARACTERS` are. A text that the tokenizer refuses has none.
        """
        wanted = self.windows * self.max_tokens * HEAD_CHARACTERS_PER_TOKEN
        whole = [self.prompt + text[:MAXIMUM_CHARACTERS] for text in texts]
        heads = [text[: _head(text, wanted)] for text in whole]
        with self._lock:
            ids_of_texts = self._ids(heads)
            short = [
                i
                for i, windows in enumerate(ids_of_texts)
                if len(heads[i]) < len(whole[i]) and not self._full(windows)
            ]
            for i, windows in zip(short, self._ids([whole[i] for i in short]), strict=True):
                ids_of_texts[i] = windows
        counts = np.fromiter(map(len, ids_of_texts), np.int64, len(ids_of_texts))
        return Windows(
            [ids for windows in ids_of_texts for ids in windows],
            np.repeat(np.arange(len(ids_of_texts)), counts),
            len(ids_of_texts),
        )

    def _full(self, windows: list[list[int]]) -> bool:
        return len(windows) == self.windows and len(windows[-1]) == self.max_tokens

    def _ids(self, texts: list[str]) -> list[list[list[int]]]:
        """Return the windows of each text, none for a text that the tokenizer refuses."""
        return [windows or [] for windows in or_none(self._encode, texts)] if texts else []

    def _encode(self, texts: list[str]) -> list[list[list[int]]]:
        # Set in each call, to override truncation and padding of tokenizer.json.
        settings = {"truncation": True, "max_length": self.max_tokens, "padding": False}
        if self.windows == 1:
            return [[ids] for ids in self.tokenizer(texts, **settings)["input_ids"]]
        cut = self.tokenizer(texts, **settings, return_overflowing_tokens=True, stride=0)
        windows_of: list[list[list[int]]] = [[] for _ in texts]
        for ids, i in zip(cut["input_ids"], cut["overflow_to_sample_mapping"], strict=True):
            if len(windows_of[i]) < self.windows:
                windows_of[i].append(ids)
        return windows_of

    def pad(
        self, rows: Sequence[list[int]], length: int
    ) -> tuple[Int64[np.ndarray, "batch length"], Int64[np.ndarray, "batch length"]]:
        """Return ids and attention mask of one batch, `(batch, length)` int64 each."""
        ids = np.full((len(rows), length), self.tokenizer.pad_token_id or 0, np.int64)
        mask = np.zeros_like(ids)
        left = self.tokenizer.padding_side == "left"
        for i, row in enumerate(rows):
            place = slice(length - len(row), length) if left else slice(len(row))
            ids[i, place] = row
            mask[i, place] = 1
        return ids, mask


def make_window_reader(model: str, folder: Path, max_tokens: int, windows: int) -> WindowReader:
    """Return the reader of the model in `folder`.

    Raises:
        UserError: The model has no fast tokenizer, or reads fewer tokens than `max_tokens`.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = None
    if (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # a damaged tokenizer raises errors of many kinds
            raise UserError(
                f"embed.model {model}: the tokenizer in {folder} cannot be loaded "
                f"({first_line(error)}). Restore the model's files."
            ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"embed.model {model}: not a transformer with a fast tokenizer. "
            "Choose another model, such as all-MiniLM-L6-v2."
        )
    longest = max_tokens
    settings = model_config(model, folder)
    positions = getattr(settings, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:  # others have no limit
        longest = positions - RESERVED_POSITIONS.get(settings.model_type, 0)
    if max_tokens > longest:
        raise UserError(
            f"embed.max_tokens {max_tokens}: {model} reads at most {longest} tokens. "
            "Set a smaller number."
        )
    sentence = read_model_json(folder / "config_sentence_transformers.json")
    prompt = (sentence.get("prompts") or {}).get(sentence.get("default_prompt_name") or "", "")
    return WindowReader(tokenizer, prompt, max_tokens, windows, longest)


def _head(text: str, characters: int) -> int:
    """Return the length of the text's head: at most `characters`, up to a space.

    A text without a space there is not cut.
    """
    if len(text) <= characters:
        return len(text)
    space = text.rfind(" ", 0, characters)
    return space if space > 0 else len(text)
