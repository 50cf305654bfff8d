"""How fast a run goes, and where its time goes."""

from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from trainer.model.flops import utilisation
from trainer.state.checkpoint import State


@dataclass
class Speed:
    """Rates since the last record; nothing of it is kept in a checkpoint."""

    model: PreTrainedModel
    sequence_tokens: int
    device: torch.device
    world: int
    _last: tuple[float, ...] = field(default=(0.0, 0.0, 0.0, 0.0))

    def begin(self, state: State) -> None:
        self._last = (state.tokens, state.seconds, state.data_seconds, state.scoring_seconds)

    def since_last(self, state: State) -> dict[str, float | None]:
        """For a record of metrics.jsonl: cumulated seconds; then, since the last record, tokens a second, the shares of the time spent
        waiting for data and measuring, and the model FLOPs utilisation where the device's peak is known.
        """
        before = self._last
        self.begin(state)
        tokens, seconds, waiting, scoring = (
            now - then for now, then in zip(self._last, before, strict=True)
        )
        seconds = max(seconds, 1e-9)
        rate = tokens / seconds
        return {
            "seconds": state.seconds,
            "data_seconds": state.data_seconds,
            "scoring_seconds": state.scoring_seconds,
            "tokens_per_second": rate,
            "data_share": waiting / seconds,
            "scoring_share": scoring / seconds,
            "mfu": utilisation(self.model, self.sequence_tokens, rate, self.device, self.world),
        }
