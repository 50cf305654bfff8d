"""Configuration of a training run.

This module does not import torch, so that a launcher can check a file before it starts a process.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data_catalog.format.manifest import fingerprint
from data_catalog.settings import Settings

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
MixerName = Literal[
    "natural",
    "uniform",
    "temperature",
    "static",
    "importance",
    "dga",
    "doge",
    "doremi",
    "odm",
    "ado",
    "replay",
]
Scores = Literal["raw", "clipped", "cosine", "normalised"]
AlignmentBackend = Literal["exact", "ghost", "finite_difference"]
Schedule = Literal["cosine", "constant", "wsd"]

LEARNING = ("dga", "doge", "doremi", "odm", "ado")  # mixers whose weights change during training
ALIGNING = ("dga", "doge")  # mixers that need gradients


class Model(Settings):
    """Model to train."""

    preset: Literal["tiny", "125m", "350m", "750m"] = "tiny"
    """Llama-style architecture with random initial weights."""
    path: str | None = None
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
        if self.path is not None and (self.hidden_size or self.layers or self.heads):
            raise ValueError(
                "hidden_size, layers and heads apply only to a preset. A model with path has its "
                "own. Remove them or path"
            )
        return self


class Data(Settings):
    """Limits on the data that is sampled from the catalog."""

    version: Positive | None = None
    """Version of the catalog. If not given, the newest."""
    tokens_per_domain: Positive | None = None
    """Maximum number of tokens available per domain, to simulate scarce data. If not given, there
    is no maximum."""
    max_epochs: Above | None = None
    """Maximum number of epochs per domain. If not given, there is no maximum."""
    budgets: Path | None = None
    """File with a maximum number of sampled tokens per domain: a table with columns `domain` and
    `tokens`, or a JSON object."""


class Mixture(Settings):
    """Mixture of domains, and the way it is learned."""

    mixer: MixerName = "dga"
    """Method that sets the weights."""
    basis: Literal["distributions", "domains"] = "distributions"
    """Members that a learning mixer weights: basis distributions, or single domains."""
    level: Positive | None = None
    """Granularity of the domains. If not given, the finest."""
    kind: Literal["hard", "distance"] = "hard"
    """Kind of the basis distributions. `hard`: counts of the nearest domain. `distance`: soft
    assignment by distance."""
    names: tuple[str, ...] = ()
    """Names of the basis distributions. If empty, all of this kind, `natural` and `uniform`."""
    temperature: Above = 2.0
    """Temperature T of the mixer `temperature`, whose weights are proportional to
    tokens ** (1 / T)."""
    file: Path | None = None
    """Weights. For the mixer `static`, a table with columns `domain` (or `name`) and `weight`. For
    the mixer `replay`, the folder of a run or its `weights.parquet`."""
    reference: Path | None = None
    """Folder of the reference model of the mixer `doremi`, such as `model/` of a run."""
    start: str | None = None
    """Member that gets half of the initial weight. The others share the rest evenly. If not given,
    all members have the same initial weight."""
    eta: Above | None = None
    """Step size of mirror ascent. If not given, the published value of the mixer."""
    ema: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the new weights in the moving average. 1 disables averaging."""
    scores: Scores = "clipped"
    """Scaling of the gradients that are compared. See docs/training.md."""
    toward: Literal["target", "members"] = "target"
    """Gradient that the mixer `doge` aligns with: the target's, or the sum of the members'."""
    preconditioned: bool = False
    """Precondition the target's gradient like an AdamW step."""
    most_change: Above | None = None
    """Maximum of KL(new weights || old weights) per update, in nats. If not given, there is no
    maximum."""
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the total weight that is always spread evenly over all members."""
    error_aware: bool = False
    """Shrink scores in proportion to the noise that their standard errors indicate."""
    backend: AlignmentBackend = "exact"
    """Method that measures gradient alignment. `exact`: a backward pass per member. `ghost`: scores
    per sequence from one backward pass. `finite_difference`: two forward passes per sequence."""
    measure_on: Literal["probes", "batch"] = "probes"
    """Sequences that are measured: new sequences of each member, or the last training batch before
    the update."""
    update_every_steps: Positive = 100
    """Number of optimizer steps between updates of the weights."""
    basis_sequences: Positive = 8
    """Number of sequences that each member is measured on, per update."""
    target_sequences: Positive = 32
    """Number of sequences of the target's align split that are measured, per update."""
    overhead_budget: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Maximum work of measurements as a share of the work of training. Updates become rarer, then
    smaller, to meet it. If not given, there is no maximum."""
    warmup_steps: Count = 0
    """Number of optimizer steps before the first update. The initial weights are always used until
    the end of the first interval."""
    objective: Literal["text", "answer", "choices"] = "text"
    """Objective on the target. `text`: loss on all tokens. `answer`: loss on the answer's tokens.
    `choices`: loss of selecting the correct choice."""
    answer_after: str = "\nAnswer:"
    """Text that precedes the answer."""

    @property
    def learns(self) -> bool:
        """True if the weights change during training."""
        return self.mixer in LEARNING

    @model_validator(mode="after")
    def _fits(self) -> "Mixture":
        if self.mixer in ("static", "replay") and self.file is None:
            file = "a table of weights" if self.mixer == "static" else "the folder of a run"
            raise ValueError(f'mixer = "{self.mixer}" needs mixture.file. Give the path of {file}')
        if self.mixer == "doremi" and self.reference is None:
            raise ValueError(
                'mixer = "doremi" needs mixture.reference. Give the folder of a reference model'
            )
        if (
            self.mixer in ALIGNING
            and self.backend != "exact"
            and self.scores in ("clipped", "cosine")
        ):
            raise ValueError(
                f'scores = "{self.scores}" needs the norms of all gradients, which only '
                'backend = "exact" computes. Set backend = "exact" or scores = "normalised"'
            )
        if self.measure_on == "batch" and self.backend == "exact":
            raise ValueError(
                'measure_on = "batch" needs a score per sequence, which backend = "exact" does not '
                'compute. Set backend = "ghost" or "finite_difference"'
            )
        if self.measure_on == "batch" and self.mixer != "dga":
            raise ValueError(
                f'measure_on = "batch" needs mixer = "dga", found mixer = "{self.mixer}". '
                'Set measure_on = "probes"'
            )
        if self.error_aware and self.scores in ("clipped", "cosine"):
            raise ValueError(
                f'error_aware needs standard errors, which scores = "{self.scores}" does not '
                'have. Set scores = "normalised" or "raw"'
            )
        return self


class Optimizer(Settings):
    """AdamW and its learning rate schedule."""

    learning_rate: Above = 5e-4
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    """Learning rate after warm-up. `cosine`: decays to a tenth of the peak. `wsd`: constant, then
    decays to zero over the last fifth of the steps. `constant`: stays at the peak."""
    warmup_steps: Count = 100
    """Number of steps over which the learning rate rises to its peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Weight decay of matrices. Norms and biases have none."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay rate of AdamW's average of gradients."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay rate of AdamW's average of squared gradients."""
    clip: Above = 1.0
    """Maximum gradient norm."""


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
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of forward and backward passes. Weights are always float32."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Distribution over several processes. `ddp`: a copy of the model per process. `fsdp2`: a shard
    of the model per process."""
    compile: bool = False
    """Compile the model with `torch.compile`."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass. Saves memory but adds about a third more work."""
    log_every_steps: Positive = 10
    """Number of steps between records of `metrics.jsonl`."""


class Finetune(Settings):
    """A second phase on the target's align split alone."""

    steps: Count = 0
    """Number of optimizer steps. 0 disables this phase."""
    learning_rate: Above = 1e-4
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    """Learning rate after warm-up, as in `optimizer`."""
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


class Train(Settings):
    """A training run."""

    catalog: Path
    """Folder of the catalog."""
    out: Path
    """Folder of the run."""
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
    """AdamW and its learning rate schedule."""
    training: Training = Training()
    """Length, batches and precision of the main phase."""
    finetune: Finetune = Finetune()
    """A second phase on the target's align split alone."""
    evaluation: Evaluation = Evaluation()
    """Evaluation on held-out documents."""
    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints of the training state."""

    @property
    def steps(self) -> int:
        """Number of optimizer steps of both phases."""
        return self.training.steps + self.finetune.steps

    def fingerprint(self) -> str:
        """Return a hash of every setting that changes the numbers of a run.

        The run's location and its checkpoint settings are not included.
        """
        settings: dict[str, Any] = self.model_dump(
            mode="json", exclude={"catalog", "out", "checkpoint"}
        )
        return fingerprint("train", 2, settings)
