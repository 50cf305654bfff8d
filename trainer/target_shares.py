"""Shares of the targets that the mixture is made for, which can change during a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_catalog.errors import UserError
from trainer.config import Train
from trainer.evaluation.evaluate import held_out_losses
from trainer.inputs import Inputs
from trainer.mixers.guardrail import Guardrail, read_guardrail
from trainer.mixers.simplex import MixerMemory
from trainer.mixture_config import GENERAL
from trainer.model.engine import Engine


@dataclass(frozen=True)
class TargetShares:
    """The rule for the shares of the targets.

    What it has learned is part of the mixer's memory, which checkpoints store.
    """

    own: Mapping[str, float]
    """Shares that the config gives, by name. They sum to 1."""
    guardrail: Guardrail | None
    """Limit on the loss on general text."""

    def shares(self, memory: MixerMemory) -> dict[str, float]:
        """Return the present shares by name, which sum to 1."""
        shares = dict(self.own)
        return self.guardrail.shares(shares, memory) if self.guardrail else shares

    def updated(
        self, engine: Engine, inputs: Inputs, memory: MixerMemory, tokens: int
    ) -> tuple[MixerMemory, dict[str, Any]]:
        """Make the measurements that the shares depend on.

        All processes call this together.

        Args:
            engine: the model.
            inputs: the inputs of the run.
            memory: the mixer's memory.
            tokens: number of tokens trained on.

        Returns:
            The new memory, and values for the record of the update in metrics.jsonl.
        """
        record: dict[str, Any] = {}
        if self.guardrail:
            general = [each for each in inputs.validation_sets if each.name == GENERAL]
            [result] = held_out_losses(engine, general, inputs.byte_lengths)
            memory = self.guardrail.updated(memory, result.loss, tokens)
            record |= self.guardrail.record(memory, result.loss, tokens)
        return memory, record


def open_target_shares(config: Train, inputs: Inputs, updates: int) -> TargetShares:
    """Return the rule of a run for the shares of its targets.

    Args:
        config: the config of the run.
        inputs: its inputs.
        updates: number of updates of its weights.

    Raises:
        UserError: The limit on the loss on general text cannot be measured.
    """
    mixture, guardrail = config.mixture, None
    if mixture.general_loss_at_most is not None:
        if GENERAL not in {each.name for each in inputs.validation_sets}:
            raise UserError(
                "mixture.general_loss_at_most: The catalog has no held-out documents. Remove it, "
                "or build the catalog with a held_out_share."
            )
        guardrail = read_guardrail(mixture.general_loss_at_most, updates)
    return TargetShares(mixture.target_shares(config.target), guardrail)
