"""Tokenized pairs of prompt and completion. Only the completion takes part in the loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from data_catalog.format.tokens import IGNORED, TokenStore
from trainer.evaluation.questions import Question
from trainer.evaluation.tokenizer import encode_texts
from trainer.sampling.batches import Batch

WIDTH_STEP = 64  # a batch is cut to a multiple of so many tokens: less padding, and few shapes for a compiled model


@dataclass(frozen=True)
class Completions:
    store: TokenStore  # each a leaf of its own, of one sequence: the end of prompt and completion, where they are longer than that
    counted: Int[np.ndarray, " completions"]  # labels of each that are the completion's
    length: int

    def __len__(self) -> int:
        return len(self.counted)

    def read(self, which: Int[np.ndarray, " n"], mine: slice = slice(None)) -> Batch:
        """The completions `which[mine]`; the loss's divisor counts the labels of all of `which`."""
        chosen = which[mine]
        inputs, labels = self.store.read(chosen, np.zeros_like(chosen), self.length)
        prompt = self.store.tokens[chosen] - 1 - self.counted[chosen]
        labels[np.arange(self.length) < prompt[:, None]] = IGNORED
        longest = int((self.store.tokens[chosen] - 1).max(initial=1))
        width = min(-(-longest // WIDTH_STEP) * WIDTH_STEP, self.length)
        total = int(self.counted[which].sum())
        return Batch(
            torch.from_numpy(inputs[:, :width].copy()),
            torch.from_numpy(labels[:, :width].copy()),
            total,
        )


@dataclass(frozen=True)
class Choices:
    """Questions: completions `first[i] .. first[i + 1]` are the choices of question i."""

    completions: Completions
    first: Int[np.ndarray, " questions_plus_one"]
    right: Int[np.ndarray, " questions"]  # counted from each question's first choice
    bytes: Float[np.ndarray, " completions"]  # of each choice as UTF-8, blanks included

    def __len__(self) -> int:
        return len(self.right)

    def rows(
        self, questions: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
        """All choices of `questions`, one after the other: which completion it is, whose of `questions`, and which of its choices."""
        counts = self.first[questions + 1] - self.first[questions]
        owners = np.repeat(np.arange(len(questions)), counts)
        places = np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]
        return self.first[questions][owners] + places, owners, places


def tokenize_completions(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], length: int, end_of_text: int | None
) -> Completions:
    """Tokens of (prompt, completion) pairs, closed by `end_of_text` if there is one, as sequences of at most `length` labels.

    The two are encoded as one text; the completion's tokens are those beyond as many as the prompt alone has, as lm-evaluation-harness
    counts them. What is too long loses its beginning.
    """
    prompts = encode_texts(tokenizer, [prompt for prompt, _ in pairs])
    whole = encode_texts(tokenizer, [prompt + completion for prompt, completion in pairs])
    closing = [] if end_of_text is None else [end_of_text]
    ids = [[*tokens, *closing][-(length + 1) :] for tokens in whole]
    sizes = np.array([len(tokens) for tokens in ids], np.int64)
    asked = [
        len(tokens) + len(closing) - len(prompt)
        for tokens, prompt in zip(whole, prompts, strict=True)
    ]
    counted = np.clip(
        np.array(asked, np.int64), 1, sizes - 1
    )  # at least one: a token may hold the end of one and all of the other
    store = TokenStore(
        {0: np.concatenate(ids)},
        np.zeros_like(sizes),
        np.cumsum(sizes) - sizes,
        sizes,
        pad=ids[0][-1],
    )
    return Completions(store, counted, length)


def tokenize_choices(tokenizer: Tokenizer, questions: Sequence[Question], length: int) -> Choices:
    """Return the tokens of every choice of every question, each after its prompt."""
    texts = [
        (question.prompt, completion)
        for question in questions
        for completion in question.completions
    ]
    counts = [len(question.completions) for question in questions]
    sizes = np.array([len(completion.encode()) for _, completion in texts], np.float64)
    right = np.array([question.right for question in questions], np.int64)
    return Choices(
        tokenize_completions(tokenizer, texts, length, None), np.cumsum([0, *counts]), right, sizes
    )
