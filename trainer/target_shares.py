"""Shares of the targets that the mixture is made for, which can change during a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_catalog.errors import UserError
from trainer.config import Train
from trainer.evaluation.evaluate import held_out_losses
from trainer.inputs import Inputs
from trainer.mixers.guardrail import Guardrail, read_guardrail
from trainer.mixers.improvement import ImprovementWeights
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
    improvement: ImprovementWeights | None
    """Weights that follow the targets' rates of improvement."""

    @property
    def can_change(self) -> bool:
        """True if the shares are not those of the config throughout the run."""
        return self.guardrail is not None or self.improvement is not None

    def shares(self, memory: MixerMemory) -> dict[str, float]:
        """Return the present shares by name, which sum to 1."""
        shares = dict(self.own)
        if self.improvement:
            shares |= self.improvement.weights(memory)
        return self.guardrail.shares(shares, memory) if self.guardrail else shares

    def begun(self, engine: Engine, inputs: Inputs, memory: MixerMemory) -> MixerMemory:
        """Return the memory after the measurement before the first step, if one is needed.

        It is what the first update compares its measurement with. All processes call this together.
        """
        if not self.improvement:
            return memory
        return self.improvement.updated(memory, self._losses(self.improvement, engine, inputs))

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
        if self.improvement:
            losses = self._losses(self.improvement, engine, inputs)
            memory = self.improvement.updated(memory, losses)
            record |= self.improvement.record(memory)
        return memory, record

    def _losses(
        self, improvement: ImprovementWeights, engine: Engine, inputs: Inputs
    ) -> dict[str, float]:
        return {name: inputs.aims[name].loss(engine) for name in improvement.own}


def open_target_shares(config: Train, inputs: Inputs, updates: int) -> TargetShares:
    """Return the rule of a run for the shares of its targets.

    Args:
        config: the config of the run.
        inputs: its inputs.
        updates: number of updates of its weights.

    Raises:
        UserError: The limit on the loss on general text cannot be measured.
    """
    mixture, guardrail, improvement = config.mixture, None, None
    own = mixture.target_shares(config.target)
    if mixture.general_loss_at_most is not None:
        if GENERAL not in {each.name for each in inputs.validation_sets}:
            raise UserError(
                "mixture.general_loss_at_most: The catalog has no held-out documents. Remove it, "
                "or build the catalog with a held_out_share."
            )
        guardrail = read_guardrail(mixture.general_loss_at_most, updates)
    if mixture.target_weights == "improvement":
        weights = {name: own[name] for name in mixture.targets}
        improvement = ImprovementWeights(weights, max(updates, 1))
    return TargetShares(own, guardrail, improvement)
