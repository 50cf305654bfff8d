"""Objectives whose gradient is the target's gradient.

They are the loss on the target's text, the loss on its answers, and the loss of choosing the right
answer. Each reads the align split in a pseudorandom order, continuing from update to update.
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
from trainer.mixture_config import ObjectiveKind
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

    def loss(self, engine: Engine) -> float:
        """Return the loss on the documents of interval 0, which stay the same. No gradient is used.

        All processes call this together.
        """
        ...

    def evaluate(self, engine: Engine) -> list[HeldOutLoss]:
        """Return the loss on held-out documents, or nothing if an evaluation set measures it."""
        ...


def open_objective(
    files: CatalogFiles,
    config: Train,
    align: Pool,
    target: str | None = None,
    kind: ObjectiveKind | None = None,
) -> Objective:
    """Return the objective of a run on a target.

    It reads `mixture.target_sequences` sequences, answers or questions per interval.

    Args:
        files: the open catalog.
        config: the config of the run.
        align: the text of the target's align split.
        target: name of the target. None: that of the run.
        kind: the objective. None: that of the run.

    Raises:
        UserError: No document of the target has the form that the objective needs.
    """
    mixture, length = config.mixture, files.sequence_tokens
    target, kind = target or config.target, kind or mixture.objective
    if kind == "text":
        return TextLoss(align, mixture.target_sequences, config.seed)
    tokenizer, splits = open_tokenizer(files), ("align", "validation")
    if kind == "answer":
        pairs = [read_answers(files, target, split, mixture.answer_after) for split in splits]
        learned, held_out = (
            tokenize_completions(tokenizer, of_split, length, files.end_of_text)
            for of_split in pairs
        )
        return AnswerLoss(
            learned, held_out, mixture.target_sequences, config.evaluation.sequences, config.seed
        )
    questions = [read_questions(files, target, split, mixture.answer_after) for split in splits]
    aligned, validation = (tokenize_choices(tokenizer, each, length) for each in questions)
    return ChoiceLoss(
        aligned, validation, mixture.target_sequences, config.evaluation.sequences, config.seed
    )


@dataclass(frozen=True)
class TextLoss:
    """Loss on all text, in nats per token."""

    align: Pool
    """Sequences of the align split, or of the corpus."""
    count: int
    """Number of sequences per update."""
    seed: int
    """Seed of their order."""
    purpose: str = "target"
    """Name of their order."""

    def backward(self, engine: Engine, interval: int) -> Tensor:
        leaves, rows = self.align.in_order(
            self.seed, self.purpose, interval * self.count, self.count
        )
        batch = self.align.read(
            leaves, rows, process_slice(self.count, engine.team.rank, engine.team.world)
        )
        return engine.backward(engine.packed(batch))[0]

    def loss(self, engine: Engine) -> float:
        count, team = min(self.count, self.align.total), engine.team
        leaves, rows = self.align.in_order(self.seed, self.purpose, 0, count)
        batch = self.align.read(leaves, rows, process_slice(count, team.rank, team.world))
        nats = engine.losses(engine.packed(batch)).double().sum()
        return float(team.sum(nats)) / batch.total

    def evaluate(self, engine: Engine) -> list[HeldOutLoss]:  # noqa: ARG002 - protocol
        return []  # The evaluation set target/validation measures this loss.


@dataclass(frozen=True)
class AnswerLoss:
    """Loss on the answers and their end-of-text, given the prompts, in nats per token."""

    align: Completions
    """Answers of the align split."""
    validation: Completions
    """Answers of the validation split."""
    count: int
    """Number of answers per update."""
    maximum_evaluated: int
    """Maximum number of held-out answers."""
    seed: int
    """Seed of their order."""

    def backward(self, engine: Engine, interval: int) -> Tensor:
        chosen = walk(self.seed, "target", interval * self.count, self.count, len(self.align))
        batch = self.align.read(
            chosen, process_slice(self.count, engine.team.rank, engine.team.world)
        )
        return engine.backward(engine.packed(batch))[0]

    def loss(self, engine: Engine) -> float:
        count = min(self.count, len(self.align))
        chosen = walk(self.seed, "target", 0, count, len(self.align))
        return _answer_loss(engine, self.align, chosen)[0]

    def evaluate(self, engine: Engine) -> list[HeldOutLoss]:
        available = len(self.validation)
        count = min(self.maximum_evaluated, available)
        chosen = walk(self.seed, "evaluate", 0, count, available)
        loss, error = _answer_loss(engine, self.validation, chosen)
        return [HeldOutLoss("target/validation/answer", loss, error, len(chosen))]


@dataclass(frozen=True)
class ChoiceLoss:
    """Loss of choosing the right answer, in nats per question.

    It is `-log softmax_c(s_c)` at the right choice, with s_c the length-normalised log-likelihood
    of choice c given the prompt, `s_c = log p_c * mean(n) / n_c`. n_c is the number of tokens of
    choice c, and mean(n) their mean over the choices of the question. Short choices thus have no
    advantage: an untrained model, for which all tokens are equally likely, gives all choices the
    same score. Choices of equal length, such as letters, have their plain log-likelihoods.
    """

    align: Choices
    """Questions of the align split."""
    validation: Choices
    """Questions of the validation split."""
    count: int
    """Number of questions per update."""
    maximum_evaluated: int
    """Maximum number of held-out questions."""
    seed: int
    """Seed of their order."""

    def backward(self, engine: Engine, interval: int) -> Tensor:
        """Add the gradient to `.grad` in two passes.

        The derivative of a question's loss by `-log p_c` is
        `mean(n) / n_c * (1[c is right] - softmax_c(s))`. A forward pass computes these factors. A
        second pass multiplies the gradient of each choice by its factor.

        Args:
            engine: the model.
            interval: number of the interval, which selects the questions.

        Returns:
            This process's share of the loss.
        """
        chosen = walk(self.seed, "target", interval * self.count, self.count, len(self.align))
        own = chosen[process_slice(self.count, engine.team.rank, engine.team.world)]
        rows, owners, places = self.align.rows(own)
        batch = self.align.completions.read(rows)
        scales = _scales(self.align.completions.counted[rows], owners, len(own))
        table = _table(-_nats(engine, batch) * scales, owners, places, len(own))
        logs = table.log_softmax(1)
        right = (torch.arange(len(own)), torch.from_numpy(self.align.right[own]))
        errors = -logs.exp()
        errors[right] += 1
        backward_weighted(engine, batch, errors[owners, places] * scales / self.count)
        return (-logs[right].sum() / self.count).to(engine.team.device)

    def loss(self, engine: Engine) -> float:
        count = min(self.count, len(self.align))
        chosen = walk(self.seed, "target", 0, count, len(self.align))
        return _choice_loss(engine, self.align, chosen).loss

    def evaluate(self, engine: Engine) -> list[HeldOutLoss]:
        """Return the mean loss per question and the accuracy.

        A question is right if the right choice has the highest log-likelihood, plain or per byte.
        """
        choices = self.validation
        count = min(self.maximum_evaluated, len(choices))
        chosen = walk(self.seed, "evaluate", 0, count, len(choices))
        return [_choice_loss(engine, choices, chosen)]


def _answer_loss(
    engine: Engine, answers: Completions, chosen: Int[np.ndarray, " n"]
) -> tuple[float, float]:
    """Return the mean loss of the chosen answers and its standard error, in nats per token."""
    own = process_slice(len(chosen), engine.team.rank, engine.team.world)
    nats = _nats(engine, answers.read(chosen, own))
    tokens = torch.from_numpy(answers.counted[chosen[own]]).double()
    sums = engine.team.sum(moments(nats, tokens).sum(0).to(engine.team.device))
    return ratio_and_error(*sums.tolist())


def _choice_loss(engine: Engine, choices: Choices, chosen: Int[np.ndarray, " n"]) -> HeldOutLoss:
    """Return the mean loss of the chosen questions and their accuracy."""
    team = engine.team
    own = chosen[process_slice(len(chosen), team.rank, team.world)]
    rows, owners, places = choices.rows(own)
    plain = -_nats(engine, choices.completions.read(rows))
    scales = (
        torch.ones_like(plain),
        _scales(choices.completions.counted[rows], owners, len(own)),
        1 / torch.from_numpy(choices.bytes[rows]),
    )
    by_sum, by_token, by_byte = (
        _table(plain * scale, owners, places, len(own)) for scale in scales
    )
    right = torch.from_numpy(choices.right[own])
    losses = -by_token.log_softmax(1)[torch.arange(len(own)), right]
    values = (losses, *((scores.argmax(1) == right).double() for scores in (by_sum, by_byte)))
    sums = torch.stack([moments(of_each, torch.ones_like(of_each)).sum(0) for of_each in values])
    loss, accuracy, normalised = (
        ratio_and_error(*row) for row in team.sum(sums.to(team.device)).tolist()
    )
    return HeldOutLoss(
        "target/validation/choices", *loss, len(chosen), None, *accuracy, normalised[0]
    )


def _nats(engine: Engine, batch: Batch) -> Float[Tensor, " sequences"]:
    """Return the sum of nats of each sequence, fp64."""
    return engine.losses(engine.packed(batch)).double().cpu()


def backward_weighted(engine: Engine, batch: Batch, weights: Float[Tensor, " sequences"]) -> None:
    """Add `sum_j weights_j * gradient of sequence j's sum of nats` to `.grad`.

    The sum is over the sequences of all processes. Sequences are run one at a time, because the
    loss is a sum over the sequences of a batch.

    Args:
        engine: the model.
        batch: this process's sequences.
        weights: weight of each of them.
    """
    alone = replace(
        engine, training=engine.training.model_copy(update={"micro_batch_sequences": 1})
    )
    # If another process has more sequences, masked ones are appended here.
    factors = chain(weights.tolist(), repeat(0.0))
    for factor, part in zip(factors, alone.micro_batches(batch, shared=True)):  # noqa: B905
        (engine.run(part).total * factor).backward()


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
) -> Float[Tensor, "questions choices"]:
    """Return one row per question, padded with minus infinity."""
    table = torch.full((questions, int(places.max(initial=0)) + 1), -torch.inf, dtype=torch.float64)
    table[owners, places] = values
    return table
