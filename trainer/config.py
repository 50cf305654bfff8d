"""The config of a run. Importable without torch, so that a launcher can check a file before it starts any process."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data_catalog.format.manifest import fingerprint
from data_catalog.settings import Settings

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
Mixer = Literal[
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
Backend = Literal["exact", "ghost", "finite_difference"]
Schedule = Literal["cosine", "constant", "wsd"]

LEARNING = ("dga", "doge", "doremi", "odm", "ado")  # mixers whose weights change while training
ALIGNING = ("dga", "doge")  # those that gradients are measured for


class Model(Settings):
    preset: Literal["tiny", "125m", "350m", "750m"] = "tiny"  # Llama-style, from random weights
    path: str | None = (
        None  # a Hugging Face folder or hub name instead: training goes on from its weights; or a config.json: random ones
    )
    hidden_size: Positive | None = None  # these three change the preset
    layers: Positive | None = None  # transformer blocks
    heads: Positive | None = None  # attention heads

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if self.path is not None and (self.hidden_size or self.layers or self.heads):
            raise ValueError(
                "hidden_size, layers and heads change a preset; a model read from path has its own"
            )
        return self


class Data(Settings):
    """What may be drawn."""

    version: Positive | None = None  # of the catalog; None: the newest
    tokens_per_domain: Positive | None = (
        None  # most tokens of a domain that are there to draw: the scarce-data setting
    )
    max_epochs: Above | None = None  # most times over that any domain is drawn: a hard bound
    budgets: Path | None = (
        None  # the most tokens to draw of each domain in it: columns domain and tokens, or a JSON object
    )


class Mixture(Settings):
    mixer: Mixer = "dga"  # what decides how much of each domain is drawn
    basis: Literal["distributions", "domains"] = "distributions"  # of a mixer that learns
    level: Positive | None = None  # granularity of the domains; None: the finest
    kind: Literal["hard", "distance"] = "hard"  # of histogram
    names: tuple[str, ...] = ()  # basis distributions; empty: all of this kind, natural and uniform
    temperature: Above = (
        2.0  # of "temperature": weights in proportion to tokens ** (1 / temperature)
    )
    file: Path | None = (
        None  # of "static": columns domain (or name) and weight; of "replay": the folder of a run, or its weights.parquet
    )
    reference: Path | None = (
        None  # of "doremi": the model (a run's model/ folder) whose losses are subtracted
    )
    start: str | None = (
        None  # member that has half of the first weights, the rest shared evenly; None: all alike
    )
    eta: Above | None = None  # step of the mirror ascent; None: the mixer's published one
    ema: Annotated[float, Field(gt=0, le=1)] = (
        0.1  # share of the new weights in the moving average; 1: no average
    )
    scores: Scores = "clipped"  # how gradients are compared; see docs/training.md
    toward: Literal["target", "members"] = (
        "target"  # of "doge": gradients are compared with the target's, or with the members' sum
    )
    preconditioned: bool = False  # the target's gradient as AdamW would step along it
    most_change: Above | None = None  # cap on KL(new weights || old) of one update, nats
    floor: Annotated[float, Field(ge=0, lt=1)] = (
        0.0  # least share that all members keep together, spread evenly
    )
    error_aware: bool = False  # shrinks scores by what their standard errors say is noise
    backend: Backend = "exact"  # how gradients are measured: a backward pass a member, per-sequence scores, or two forward passes
    measure_on: Literal["probes", "batch"] = (
        "probes"  # fresh sequences of each member, or the stage's last training batch
    )
    update_every_steps: Positive = 100  # steps of a stage: weights change between stages
    basis_sequences: Positive = 8  # sequences a basis member is measured on, at each update
    target_sequences: Positive = 32  # sequences of the target's align split in its gradient
    overhead_budget: Annotated[float, Field(gt=0, lt=1)] | None = (
        None  # most share of the training's work that measuring may add
    )
    warmup_steps: Count = (
        0  # no update before this step; the first stage always has the initial weights
    )
    objective: Literal["text", "answer", "choices"] = (
        "text"  # of the target: loss on all tokens, on the answer's, or of choosing right
    )
    answer_after: str = "\nAnswer:"  # where the answer begins

    @property
    def learns(self) -> bool:
        return self.mixer in LEARNING

    @model_validator(mode="after")
    def _fits(self) -> "Mixture":
        if self.mixer in ("static", "replay") and self.file is None:
            what = "a table of weights" if self.mixer == "static" else "a run's folder"
            raise ValueError(
                f'mixer = "{self.mixer}" reads its weights from mixture.file: name {what}'
            )
        if self.mixer == "doremi" and self.reference is None:
            raise ValueError(
                'mixer = "doremi" subtracts the losses of a reference model: name its folder in mixture.reference'
            )
        if (
            self.mixer in ALIGNING
            and self.backend != "exact"
            and self.scores in ("clipped", "cosine")
        ):
            raise ValueError(
                f'scores = "{self.scores}" compares the norms of all gradients: take backend = "exact", or scores = "normalised"'
            )
        if self.measure_on == "batch" and self.backend == "exact":
            raise ValueError(
                'measure_on = "batch" needs a score for each sequence: take backend = "ghost" or "finite_difference"'
            )
        if self.measure_on == "batch" and self.mixer != "dga":
            raise ValueError(f'measure_on = "batch" is for mixer = "dga", not "{self.mixer}"')
        if self.error_aware and self.scores in ("clipped", "cosine"):
            raise ValueError(
                f'error_aware needs standard errors, which scores = "{self.scores}" do not have; take "normalised" or "raw"'
            )
        return self


class Optimizer(Settings):
    learning_rate: Above = 5e-4  # the peak of AdamW's
    schedule: Schedule = "cosine"  # cosine: falls to a tenth; wsd: stays, then falls to zero over the last fifth; constant: stays
    warmup_steps: Count = 100  # the rate rises to its peak
    weight_decay: Annotated[float, Field(ge=0)] = 0.1  # of matrices; norms and biases have none
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9  # AdamW's average of gradients
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95  # AdamW's average of their squares
    clip: Above = 1.0  # most norm of a step's gradient


class Training(Settings):
    steps: Positive = 1_000  # optimizer steps of the main phase
    batch_sequences: Positive = 64  # of all ranks together
    micro_batch_sequences: Positive = (
        64  # of one rank, in one forward pass: the gradient is accumulated over several
    )
    sequence_tokens: Annotated[int, Field(ge=2)] = 512  # tokens of one sequence
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # bfloat16: of forward and backward passes; weights stay float32
    )
    parallel: Literal["ddp", "fsdp2"] = (
        "ddp"  # with several processes: a copy of the model each, or a shard each
    )
    compile: bool = False  # torch.compile
    checkpoint_activations: bool = False  # less memory, a third more work
    log_every_steps: Positive = 10  # a record of metrics.jsonl


class Finetune(Settings):
    """A second phase on the target's align split alone."""

    steps: Count = 0  # 0: no second phase
    learning_rate: Above = 1e-4  # the peak
    schedule: Schedule = "cosine"  # as of the optimizer
    warmup_steps: Count = 10  # the rate rises to its peak
    batch_sequences: Positive = 16  # of all ranks together


class Evaluation(Settings):
    every_steps: Count = 100  # 0: only at the end
    sequences: Positive = 256  # most sequences of a set; always the same ones
    targets: tuple[str, ...] = ()  # further targets whose test split is measured at the end
    basis: bool = True  # at the end also every basis set's test split
    domains: bool = True  # and the held-out documents of every top-level domain


class Checkpoint(Settings):
    every_steps: Count = 500  # 0: none
    keep: Positive = 2  # the newest so many
    keep_every_steps: Count = 0  # those of these steps are kept for good; 0: none
    asynchronous: bool = True  # written by a thread while training goes on


class Train(Settings):
    catalog: Path  # the catalog's folder
    out: Path  # the run's folder
    target: str  # the set of the catalog that the model is to be good at
    seed: Count = 0  # of weights, data order and everything random
    model: Model = Model()  # what is trained
    data: Data = Data()  # what may be drawn
    mixture: Mixture = Mixture()  # from which domains, and how that is learned
    optimizer: Optimizer = Optimizer()  # AdamW and its schedule
    training: Training = Training()  # how much, how long, on what
    finetune: Finetune = Finetune()  # a second phase on the target alone
    evaluation: Evaluation = Evaluation()  # what is measured, and when
    checkpoint: Checkpoint = Checkpoint()  # when the state is saved

    @property
    def steps(self) -> int:
        """Of both phases."""
        return self.training.steps + self.finetune.steps

    def fingerprint(self) -> str:
        """Of everything that changes the numbers of a run: not where it lies, nor how often it is saved."""
        settings: dict[str, Any] = self.model_dump(
            mode="json", exclude={"catalog", "out", "checkpoint"}
        )
        return fingerprint("train", 2, settings)
