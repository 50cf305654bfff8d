"""Tokenized pairs of prompt and completion. Only the completion takes part in the loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from data_catalog.format.tokens import IGNORED, TokenStore
from trainer.evaluation.questions import Question
from trainer.evaluation.tokenizer import token_ids
from trainer.sampling.batches import Batch


@dataclass(frozen=True)
class Completions:
    """Tokenized pairs of prompt and completion."""

    store: TokenStore
    """Tokens. Each pair is a leaf with one sequence. The beginning of a longer pair is cut off."""
    counted: Int[np.ndarray, " completions"]
    """Number of labels that belong to the completion."""
    length: int
    """Maximum number of labels per sequence."""

    def __len__(self) -> int:
        return len(self.counted)

    def read(self, numbers: Int[np.ndarray, " n"], own: slice = slice(None)) -> Batch:
        """Return the completions `numbers[own]` as a batch.

        The divisor of its loss is the number of labels of all `numbers`.

        Args:
            numbers: numbers of the completions in the global batch.
            own: this process's slice of them.
        """
        chosen = numbers[own]
        inputs, labels = self.store.read(chosen, np.zeros_like(chosen), self.length)
        prompt = self.store.tokens[chosen] - 1 - self.counted[chosen]
        labels[np.arange(self.length) < prompt[:, None]] = IGNORED
        total = int(self.counted[numbers].sum())
        return Batch(torch.from_numpy(inputs), torch.from_numpy(labels), total).cut()


@dataclass(frozen=True)
class Choices:
    """Tokenized choices of questions."""

    completions: Completions
    """All choices, question after question."""
    first: Int[np.ndarray, " questions_plus_one"]
    """Number of each question's first completion, and at the end the number of completions."""
    right: Int[np.ndarray, " questions"]
    """Number of the right choice among those of the question."""
    bytes: Float[np.ndarray, " completions"]
    """Number of UTF-8 bytes of each choice, including blanks."""

    def __len__(self) -> int:
        return len(self.right)

    def rows(
        self, questions: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
        """Return the completion, the question and the number of every choice of `questions`.

        Args:
            questions: numbers of the questions.

        Returns:
            The number of the completion, the position of its question in `questions`, and the
            number of the choice in its question.
        """
        counts = self.first[questions + 1] - self.first[questions]
        owners = np.repeat(np.arange(len(questions)), counts)
        places = np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]
        return self.first[questions][owners] + places, owners, places


def tokenize_completions(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], length: int, end_of_text: int | None
) -> Completions:
    """Return the tokens of pairs of prompt and completion.

    Each pair is encoded as one text. As in lm-evaluation-harness, its first tokens, as many as the
    prompt alone has, belong to the prompt, and the others to the completion. The beginning of a
    pair that is too long is cut off.

    Args:
        tokenizer: the catalog's tokenizer.
        pairs: prompts and completions.
        length: maximum number of labels per sequence.
        end_of_text: token to append to each completion, or None.
    """
    prompts = token_ids(tokenizer, [prompt for prompt, _ in pairs])
    whole = token_ids(tokenizer, [prompt + completion for prompt, completion in pairs])
    closing = [] if end_of_text is None else [end_of_text]
    ids = [[*tokens, *closing][-(length + 1) :] for tokens in whole]
    sizes = np.array([len(tokens) for tokens in ids], np.int64)
    lengths = [
        len(tokens) + len(closing) - len(prompt)
        for tokens, prompt in zip(whole, prompts, strict=True)
    ]
    # At least one, because a single token may hold the end of the prompt and the whole completion.
    counted = np.clip(np.array(lengths, np.int64), 1, sizes - 1)
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
