"""Objectives whose gradient is the target's gradient.

They are the loss on the target's text, the loss on its answers, or the loss of choosing the right
answer. Each walks through the align split in a keyed order, update after update.
"""

from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.format.files import CatalogFiles
from trainer.config import Train
from trainer.distributed import process_slice
from trainer.evaluation.completions import (
    Choices,
    Completions,
    tokenize_choices,
    tokenize_completions,
)
from trainer.evaluation.evaluate import HeldOutLoss, moments, ratio_and_error
from trainer.evaluation.questions import read_answers, read_questions
from trainer.evaluation.tokenizer import open_tokenizer
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch, Pool
from trainer.sampling.permutation import walk


@runtime_checkable
class Objective(Protocol):
    """A differentiable objective of the target."""

    def backward(self, engine: Engine, interval: int) -> Tensor:
        """Add the gradient, summed over the processes, to `.grad`.

        Args:
            engine: the model.
            interval: number of the interval, which selects the documents.

        Returns:
            This process's share of the loss.
        """
        ...

    def evaluate(self, engine: Engine) -> list[HeldOutLoss]:
        """Return the loss on held-out documents; nothing if a text set measures it anyway."""
        ...


def open_objective(files: CatalogFiles, config: Train, align: Pool) -> Objective:
    """The objective of a run, on `mixture.target_sequences` documents (or questions, with all their choices) a interval.

    Args:
        align: the text of the target's align split.

    Raises:
        UserError: no document of the target has the form that the objective needs.
    """
    mixture, length = config.mixture, files.sequence_tokens
    if mixture.objective == "text":
        return TextLoss(align, mixture.target_sequences, config.seed)
    tokenizer, splits = open_tokenizer(files), ("align", "validation")
    if mixture.objective == "answer":
        pairs = [
            read_answers(files, config.target, split, mixture.answer_after) for split in splits
        ]
        learned, held_out = (
            tokenize_completions(tokenizer, found, length, files.end_of_text) for found in pairs
        )
        return AnswerLoss(
            learned, held_out, mixture.target_sequences, config.evaluation.sequences, config.seed
        )
    questions = [
        read_questions(files, config.target, split, mixture.answer_after) for split in splits
    ]
    asked, kept = (tokenize_choices(tokenizer, found, length) for found in questions)
    return ChoiceLoss(
        asked, kept, mixture.target_sequences, config.evaluation.sequences, config.seed
    )


@dataclass(frozen=True)
class TextLoss:
    """Loss on all text, in nats per token."""

    align: Pool
    count: int
    seed: int

    def backward(self, engine: Engine, interval: int) -> Tensor:
        leaves, rows = self.align.in_order(self.seed, "target", interval * self.count, self.count)
        batch = self.align.read(
            leaves, rows, process_slice(self.count, engine.team.rank, engine.team.world)
        )
        return engine.backward(batch)[0]

    def evaluate(self, engine: Engine) -> list[HeldOutLoss]:  # noqa: ARG002 - the set target/validation is this loss
        return []


@dataclass(frozen=True)
class AnswerLoss:
    """Loss on the answers and their end-of-text, given the prompts, in nats per token."""

    align: Completions
    validation: Completions
    count: int
    most: int  # answers of the held-out set
    seed: int

    def backward(self, engine: Engine, interval: int) -> Tensor:
        chosen = walk(self.seed, "target", interval * self.count, self.count, len(self.align))
        batch = self.align.read(
            chosen, process_slice(self.count, engine.team.rank, engine.team.world)
        )
        return engine.backward(batch)[0]

    def evaluate(self, engine: Engine) -> list[HeldOutLoss]:
        chosen = walk(
            self.seed, "evaluate", 0, min(self.most, len(self.validation)), len(self.validation)
        )
        mine = process_slice(len(chosen), engine.team.rank, engine.team.world)
        nats = engine.losses(self.validation.read(chosen, mine)).double().cpu()
        tokens = torch.from_numpy(self.validation.counted[chosen[mine]]).double()
        sums = engine.team.sum(moments(nats, tokens).sum(0).to(engine.team.device))
        return [
            HeldOutLoss("target/validation/answer", *ratio_and_error(*sums.tolist()), len(chosen))
        ]


@dataclass(frozen=True)
class ChoiceLoss:
    """`-log softmax_c(s_c)` at the right choice, in nats per question; s_c is the log-likelihood of choice c given the prompt.

    So that a short choice has no advantage, a log-likelihood counts as that of a choice of its question's mean number of tokens n:
    `s_c = log p_c * mean(n) / n_c`. An untrained model, to which all tokens are alike, then finds all choices alike; choices of one
    length, letters for example, have their plain log-likelihoods.
    """

    align: Choices
    validation: Choices
    count: int
    most: int  # questions of the held-out set
    seed: int

    def backward(self, engine: Engine, interval: int) -> Tensor:
        """In two passes. A question's loss has the derivative `mean(n) / n_c * (1[c is right] - softmax_c(s))` in `-log p_c`: a forward
        pass gives these factors, and a second pass weighs the gradient of each choice with its own.
        """
        chosen = walk(self.seed, "target", interval * self.count, self.count, len(self.align))
        mine = chosen[process_slice(self.count, engine.team.rank, engine.team.world)]
        rows, owners, places = self.align.rows(mine)
        batch = self.align.completions.read(rows)
        scales = _scales(self.align.completions.counted[rows], owners, len(mine))
        table = _table(-engine.losses(batch).double().cpu() * scales, owners, places, len(mine))
        logs, right = (
            table.log_softmax(1),
            (torch.arange(len(mine)), torch.from_numpy(self.align.right[mine])),
        )
        errors = -logs.exp()
        errors[right] += 1
        backward_weighted(engine, batch, errors[owners, places] * scales / self.count)
        return (-logs[right].sum() / self.count).to(engine.team.device)

    def evaluate(self, engine: Engine) -> list[HeldOutLoss]:
        """Return the mean loss per question and the accuracy.

        A question is right if the right choice has the highest log-likelihood, plain or per byte.
        """
        kept, team = self.validation, engine.team
        chosen = walk(self.seed, "evaluate", 0, min(self.most, len(kept)), len(kept))
        mine = chosen[process_slice(len(chosen), team.rank, team.world)]
        rows, owners, places = kept.rows(mine)
        plain = -engine.losses(kept.completions.read(rows)).double().cpu()
        scales = (
            torch.ones_like(plain),
            _scales(kept.completions.counted[rows], owners, len(mine)),
            1 / torch.from_numpy(kept.bytes[rows]),
        )
        by_sum, by_token, by_byte = (
            _table(plain * scale, owners, places, len(mine)) for scale in scales
        )
        right = torch.from_numpy(kept.right[mine])
        losses = -by_token.log_softmax(1)[torch.arange(len(mine)), right]
        values = (losses, *((scores.argmax(1) == right).double() for scores in (by_sum, by_byte)))
        sums = torch.stack(
            [moments(of_each, torch.ones_like(of_each)).sum(0) for of_each in values]
        )
        loss, accuracy, normalised = (
            ratio_and_error(*row) for row in team.sum(sums.to(team.device)).tolist()
        )
        return [
            HeldOutLoss(
                "target/validation/choices", *loss, len(chosen), None, *accuracy, normalised[0]
            )
        ]


def backward_weighted(engine: Engine, batch: Batch, weights: Float[Tensor, " sequences"]) -> None:
    """Add `sum_j weights_j * gradient of sequence j's sum of nats`, over the sequences of all processes, to `.grad`.

    One sequence at a time: the loss gives the gradient of a sum over sequences, not of each.
    """
    alone = replace(
        engine, training=engine.training.model_copy(update={"micro_batch_sequences": 1})
    )
    factors = chain(
        weights.tolist(), repeat(0.0)
    )  # where another process has more sequences, masked ones come at the end
    for factor, (inputs, labels) in zip(factors, alone.micro_batches(batch, shared=True)):  # noqa: B905
        (engine.loss(inputs, labels).total * factor).backward()


def _scales(
    lengths: Int[np.ndarray, " rows"], owners: Int[np.ndarray, " rows"], questions: int
) -> Float[Tensor, " rows"]:
    """Return the mean length of a question's choices divided by the length of each."""
    means = np.bincount(owners, lengths, questions) / np.maximum(
        np.bincount(owners, minlength=questions), 1
    )
    return torch.from_numpy(means[owners] / lengths)


def _table(
    values: Float[Tensor, " rows"],
    owners: Int[np.ndarray, " rows"],
    places: Int[np.ndarray, " rows"],
    questions: int,
) -> Float[Tensor, "questions most"]:
    """Return one row per question, padded with minus infinity."""
    table = torch.full((questions, int(places.max(initial=0)) + 1), -torch.inf, dtype=torch.float64)
    table[owners, places] = values
    return table
