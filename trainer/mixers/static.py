"""Weights that stay: natural, uniform, temperature, importance sampling and a file's weights are a basis of one row."""

from trainer.mixers import MixerState, Observation, uniform_state


class Static:
    needs: frozenset[str] = frozenset()  # no gradient is spent on scores

    def start(self, basis: int) -> MixerState:
        return uniform_state(basis)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:  # noqa: ARG002 - the protocol's
        return state
