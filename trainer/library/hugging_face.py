"""The mixture in the Trainer of Hugging Face."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from data_catalog.errors import UserError
from trainer.library.mixture import LoopMixture
from trainer.library.plain_model import require_shifted_labels

STATE_FILE = "mixture.pt"


class MixtureCallback(TrainerCallback):
    """Measures the model and changes the mixture after the steps of a Trainer.

    The Trainer reads `mixture.dataset(args.per_device_train_batch_size)`, and distributes the
    sequences over processes itself. The state of the mixture is part of its checkpoints.
    """

    def __init__(self, mixture: LoopMixture) -> None:
        """Attach a mixture.

        Args:
            mixture: the mixture that the Trainer's dataset is of.
        """
        self._mixture = mixture

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - transformers
        **given: Any,
    ) -> None:
        """Check that the settings fit the mixture, and restore its state.

        Raises:
            UserError: They do not fit, or a checkpoint lacks the state of the mixture.
        """
        sequences = (
            args.train_batch_size * args.gradient_accumulation_steps * max(args.world_size, 1)
        )
        wanted = self._mixture.config.training.batch_sequences
        if sequences != wanted:
            raise UserError(
                f"training.batch_sequences: found {wanted}, but the Trainer has {sequences} per "
                "step (per_device_train_batch_size x gradient_accumulation_steps x processes). "
                "Change one of them."
            )
        if args.max_steps != self._mixture.config.training.steps:
            raise UserError(
                f"training.steps: found {self._mixture.config.training.steps}, but max_steps of "
                f"the Trainer is {args.max_steps}. Change one of them."
            )
        if not args.ignore_data_skip:
            raise UserError(
                "TrainingArguments: ignore_data_skip is False. Set it to True, because the dataset "
                "itself begins at the step of the checkpoint."
            )
        model: nn.Module = given["model"]
        require_shifted_labels(model)
        if state.global_step:
            path = _state_file(args, state)
            if not path.is_file():
                raise UserError(f"{path}: missing. The checkpoint was saved without the mixture.")
            self._mixture.load_state_dict(torch.load(path, weights_only=True))
        self._mixture.begin(model)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - transformers
        state: TrainerState,  # noqa: ARG002 - transformers
        control: TrainerControl,  # noqa: ARG002 - transformers
        **given: Any,
    ) -> None:
        """Measure the model and change the mixture if due."""
        self._mixture.after_step(given["model"])

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002 - transformers
        state: TrainerState,  # noqa: ARG002 - transformers
        control: TrainerControl,  # noqa: ARG002 - transformers
        logs: dict[str, float] | None = None,
        **given: Any,  # noqa: ARG002 - transformers
    ) -> None:
        """Write the training loss into the record of the run."""
        if logs and "loss" in logs:
            self._mixture.log_loss(logs["loss"])

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - transformers
        **given: Any,  # noqa: ARG002 - transformers
    ) -> None:
        """Write the state of the mixture into the checkpoint."""
        saved = self._mixture.state_dict()
        if state.is_world_process_zero:
            torch.save(saved, _state_file(args, state))


def _state_file(args: TrainingArguments, state: TrainerState) -> Path:
    folder = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    return Path(str(args.output_dir)) / folder / STATE_FILE
