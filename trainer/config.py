"""Configuration of a training run.

This module does not import torch, so that a launcher can check a file before it starts a process.
"""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data_catalog.folders import cache_folder
from data_catalog.format.manifest import fingerprint
from data_catalog.settings import FolderOrName, FolderPath, LocalPath, Settings
from trainer.mixture_config import (
    WITHOUT_EFFECT,
    Above,
    Count,
    Mixture,
    Positive,
    is_from_a_run,
)

Schedule = Literal["cosine", "constant", "wsd"]
TrackerName = Literal["trackio", "wandb", "tensorboard"]
# Settings of sections that older runs do not have, as such runs behave.
_OLDER_RATE: dict[str, Any] = {"decay_share": 0.2, "final_share": None}
OLDER_SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"architecture": "llama"},
    "optimizer": {**_OLDER_RATE, "kind": "adamw", "decay_embeddings": True, "skip_outliers": None},
    "finetune": _OLDER_RATE,
    "training": {"separate_documents": False, "z_loss": 0.0},
}


# Sections that do not change the numbers of a run.
UNIDENTIFYING = {"catalog", "out", "checkpoint", "log"}


class Model(Settings):
    """Model to train."""

    preset: Literal["tiny", "125m", "350m", "750m"] = "tiny"
    """Sizes of a model with random initial weights."""
    architecture: Literal["llama", "qwen3"] = "llama"
    """Architecture of a preset. `llama`: every attention head has keys and values of its own.
    `qwen3`: two heads share keys and values, and queries and keys are normalised."""
    path: FolderOrName | None = None
    """Hugging Face folder or hub name whose weights are trained further, or a `config.json` whose
    architecture gets random initial weights. Overrides `preset`."""
    hidden_size: Positive | None = None
    """Hidden size. If not given, that of the preset."""
    layers: Positive | None = None
    """Number of transformer blocks. If not given, that of the preset."""
    heads: Positive | None = None
    """Number of attention heads. If not given, that of the preset."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        sized = self.hidden_size or self.layers or self.heads
        if self.path is not None and (sized or self.architecture != "llama"):
            raise ValueError(
                "architecture, hidden_size, layers and heads apply only to a preset. A model with "
                "path has its own. Remove them or path"
            )
        return self


class Data(Settings):
    """The data that is sampled from the catalog, and limits on it."""

    version: Positive | None = None
    """Version of the catalog. If not given, the newest."""
    tokens_per_domain: Positive | None = None
    """Maximum number of tokens available per domain, to simulate scarce data. If not given, there
    is no maximum."""
    as_if_tokens: Positive | None = None
    """Tokens of the long run that this one is a model of. Every domain is thinned by the same
    ratio, so that this run repeats its data as often as the long one will. If not given, all data
    is available."""
    max_epochs: Above | None = None
    """Maximum number of epochs per domain. If not given, there is no maximum."""
    budgets: LocalPath | None = None
    """File with a maximum number of sampled tokens per domain: a table with columns `domain` and
    `tokens`, or a JSON object."""
    cache_megabytes: Positive = 4_096
    """Maximum size in MB of the token sequences that a process keeps on this machine, if the
    catalog is a URL."""
    draw_by: Literal["tokens", "sequences"] = "tokens"
    """Unit of the weights of domains. `tokens`: shares of the tokens that the model is trained on.
    `sequences`: the sequences drawn, of which those at the end of a domain are padded, as in
    earlier versions."""

    @property
    def cache_bytes(self) -> int:
        """`cache_megabytes` in bytes."""
        return self.cache_megabytes * 10**6


class LearningRate(Settings):
    """Learning rate of a phase."""

    learning_rate: Above
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    """Learning rate after warm-up. `cosine`: decays to a tenth of the peak. `wsd`: constant, then
    decays linearly to zero over the last steps. `constant`: stays at the peak."""
    warmup_steps: Count
    """Number of steps over which the learning rate rises to its peak."""
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the steps in which the schedule `wsd` decays."""
    final_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Final learning rate as a share of the peak. If not given, 0.1 with the schedule `cosine`, and
    0 with `wsd`."""


class Optimizer(LearningRate):
    """The optimizer and its learning rate schedule."""

    kind: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon for the matrices of the layers, with steps as large as those of AdamW, and AdamW
    for all other parameters."""
    learning_rate: Above = 5e-4
    """Peak learning rate."""
    warmup_steps: Count = 100
    """Number of steps over which the learning rate rises to its peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Weight decay of matrices. Norms and biases have none."""
    decay_embeddings: bool = False
    """Also apply weight decay to embeddings and to the output layer."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay rate of AdamW's average of gradients."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay rate of AdamW's average of squared gradients."""
    clip: Above = 1.0
    """Maximum gradient norm."""
    skip_outliers: Above | None = None
    """Skip a step whose loss or gradient norm is above the mean of the last 128 steps by more than
    this number of standard deviations. A common value is 6. If not given, no step is skipped."""


class Training(Settings):
    """Length, batches and precision of the main phase."""

    steps: Positive = 1_000
    """Number of optimizer steps."""
    batch_sequences: Positive = 64
    """Number of sequences per step, over all processes."""
    micro_batch_sequences: Positive = 64
    """Maximum number of sequences per process in one forward pass. Gradients are accumulated over
    several passes."""
    sequence_tokens: Annotated[int, Field(ge=2)] = 512
    """Number of tokens per sequence."""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    """Precision of forward and backward passes. Weights are always float32. `auto`: bfloat16 on a
    GPU that has it, else float32. It is chosen when the run begins, and kept when it resumes.
    `tf32`: float32, whose matrix products have the 10-bit mantissa of TF32 on a GPU."""
    parallel: Literal["ddp", "fsdp2", "hsdp"] = "ddp"
    """Distribution over several processes. `ddp`: a copy of the model per process. `fsdp2`: a shard
    of the model per process. `hsdp`: copies of the model, and a shard of a copy per process."""
    shard_processes: Count = 0
    """Number of processes that share a copy of the model with `parallel = "hsdp"`. 0: those of a
    machine."""
    compile: bool = False
    """Compile the model with `torch.compile`."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass. Saves memory but adds about a third more work."""
    separate_documents: bool = True
    """Keep the documents of a sequence apart: a token attends only to tokens of its own document,
    and positions begin at 0 in each. The documents of targets then begin with an end-of-text, as
    those of the corpus do. Models that cannot separate documents attend to all of the sequence."""
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Coefficient of the z-loss: the mean square of the logarithm of the softmax's normaliser,
    which keeps logits small. It is part of the training loss alone. Common values are 1e-5 and
    1e-4."""
    log_every_steps: Positive = 10
    """Number of steps between records of `metrics.jsonl`."""

    @property
    def draws(self) -> int:
        """Number of sequences that the main phase draws."""
        return self.steps * self.batch_sequences


class Finetune(LearningRate):
    """A second phase on the target's align split alone."""

    steps: Count = 0
    """Number of optimizer steps. 0 disables this phase."""
    learning_rate: Above = 1e-4
    """Peak learning rate."""
    warmup_steps: Count = 10
    """Number of steps over which the learning rate rises to its peak."""
    batch_sequences: Positive = 16
    """Number of sequences per step, over all processes."""


class Evaluation(Settings):
    """Evaluation on held-out documents."""

    every_steps: Count = 100
    """Number of steps between evaluations. 0 evaluates only at the end."""
    sequences: Positive = 256
    """Maximum number of sequences per document set. They are the same in each evaluation."""
    targets: tuple[str, ...] = ()
    """Further targets whose test splits are evaluated at the end."""
    basis: bool = True
    """Evaluate the test split of each basis distribution's documents at the end."""
    domains: bool = True
    """Evaluate the held-out documents of each top-level domain at the end."""
    choices: bool = False
    """Also measure how well the right answers to the target's questions of the validation split are
    chosen, whatever `mixture.objective` is."""


class Checkpoint(Settings):
    """Checkpoints of the training state."""

    every_steps: Count = 500
    """Number of steps between checkpoints. 0 disables checkpoints."""
    keep: Positive = 2
    """Number of newest checkpoints to keep."""
    keep_every_steps: Count = 0
    """Checkpoints at multiples of this number of steps are never deleted. 0 disables this."""
    asynchronous: bool = True
    """Write checkpoints in a thread while training continues."""


class Log(Settings):
    """Experiment trackers that get the metrics of the run."""

    to: tuple[TrackerName, ...] = ()
    """Trackers, which are packages to install: `trackio`, `wandb` or `tensorboard`. The metrics are
    always in `metrics.jsonl`. A tracker that fails is left out, and the run continues."""
    project: str = "clustermix"
    """Project of the run in `trackio` and `wandb`."""
    name: str | None = None
    """Name of the run in `trackio` and `wandb`. If not given, the name of its folder."""


class Train(Settings):
    """A training run."""

    catalog: FolderPath
    """Folder of the catalog, or its fsspec URL such as `s3://bucket/catalog`."""
    out: FolderPath
    """Folder of the run, or its fsspec URL such as `s3://bucket/runs/dga`."""
    target: str
    """Target of the catalog that the model is optimised for."""
    seed: Count = 0
    """Seed of the initial weights, the data order and all other randomness."""
    model: Model = Model()
    """Model to train."""
    data: Data = Data()
    """Limits on the data that is sampled from the catalog."""
    mixture: Mixture = Mixture()
    """Mixture of domains, and the way it is learned."""
    optimizer: Optimizer = Optimizer()
    """The optimizer and its learning rate schedule."""
    training: Training = Training()
    """Length, batches and precision of the main phase."""
    finetune: Finetune = Finetune()
    """A second phase on the target's align split alone."""
    evaluation: Evaluation = Evaluation()
    """Evaluation on held-out documents."""
    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints of the training state."""
    log: Log = Log()
    """Experiment trackers that get the metrics of the run."""

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, given: Any) -> Any:
        return completed(given) if isinstance(given, Mapping) else given

    @property
    def folder(self) -> Path:
        """Folder of this machine that the run works in: `out`, or one in the cache for a URL."""
        if isinstance(self.out, Path):
            return self.out
        return cache_folder() / "runs" / fingerprint(self.out.url)[:32] / platform.node()

    @property
    def steps(self) -> int:
        """Number of optimizer steps of both phases."""
        return self.training.steps + self.finetune.steps

    def fingerprint(self) -> str:
        """Return a hash of every setting that changes the numbers of a run.

        The run's location, its checkpoint and its log settings are not included.
        """
        settings: dict[str, Any] = self.model_dump(mode="json", exclude=UNIDENTIFYING)
        # Settings without effect are left out, so that a run that was started before they existed
        # keeps its fingerprint.
        for key, value in WITHOUT_EFFECT.items():
            if settings["mixture"][key] == value:
                del settings["mixture"][key]
        if self.mixture.mixer != "odm":  # no other mixer reads it
            settings["mixture"].pop("odm_form", None)
        if self.data.as_if_tokens is None:
            del settings["data"]["as_if_tokens"]
        del settings["data"]["cache_megabytes"]  # it changes no numbers
        if self.data.draw_by == "sequences":
            del settings["data"]["draw_by"]
        for section, values in OLDER_SETTINGS.items():
            for key, value in values.items():
                if settings[section][key] == value:
                    del settings[section][key]
        if not self.evaluation.choices:
            del settings["evaluation"]["choices"]
        del settings["training"]["shard_processes"]  # like the number of processes
        return fingerprint("train", 2, settings)


def completed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of an older run with the settings that its version lacked, as it behaved.

    Other settings are returned unchanged.
    """
    mixture, data = config.get("mixture"), config.get("data")
    if not (is_from_a_run(mixture) and isinstance(mixture, Mapping) and isinstance(data, Mapping)):
        return config
    # The weights of older runs are shares of sequences.
    data = {"draw_by": "sequences", **data}
    sections = {
        section: {**values, **config[section]}
        for section, values in OLDER_SETTINGS.items()
        if isinstance(config.get(section), Mapping)
    }
    return {**config, **sections, "mixture": {**WITHOUT_EFFECT, **mixture}, "data": data}
