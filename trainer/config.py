"""The config of a run. Importable without torch, so that a launcher can check a file before it starts any process."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data_catalog.manifest import fingerprint
from data_catalog.settings import Settings

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Scores = Literal["raw", "clipped", "cosine"]


class Model(Settings):
    preset: Literal["tiny", "125m", "350m", "750m"] = "tiny"  # Llama-style, from random weights
    path: str | None = None  # a Hugging Face folder or hub name instead: training goes on from its weights
    hidden_size: Positive | None = None  # these three change the preset
    layers: Positive | None = None
    heads: Positive | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if self.path is not None and (self.hidden_size or self.layers or self.heads):
            raise ValueError("hidden_size, layers and heads change a preset; a model read from path has its own")
        return self


class Mixture(Settings):
    mixer: Literal["natural", "uniform", "importance", "dga"] = "dga"
    basis: Literal["distributions", "domains"] = "distributions"  # of dga
    level: Positive | None = None  # granularity of the domains; None: the finest
    kind: Literal["hard", "distance"] = "hard"  # of histogram
    names: tuple[str, ...] = ()  # basis distributions; empty: all of this kind, natural and uniform
    eta: Annotated[float, Field(gt=0)] = 1.5  # step of the mirror ascent
    ema: Annotated[float, Field(gt=0, le=1)] = 0.1  # share of the new weights in the moving average; 1: no average
    scores: Scores = "clipped"
    update_every_steps: Positive = 100
    basis_sequences: Positive = 8  # sequences a basis member is measured on, at each update
    target_sequences: Positive = 32
    warmup_steps: Count = 0  # no update before this step; the first stage always has the initial weights


class Optimizer(Settings):
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup_steps: Count = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    clip: Annotated[float, Field(gt=0)] = 1.0  # most norm of a step's gradient


class Training(Settings):
    steps: Positive = 1_000
    batch_sequences: Positive = 64  # of all ranks together
    micro_batch_sequences: Positive = 64  # of one rank, in one forward pass
    sequence_tokens: Annotated[int, Field(ge=2)] = 512
    precision: Literal["float32", "bfloat16"] = "float32"
    log_every_steps: Positive = 10


class Evaluation(Settings):
    every_steps: Count = 100  # 0: only at the end
    sequences: Positive = 256  # most sequences of a set; always the same ones
    targets: tuple[str, ...] = ()  # further targets whose test split is measured at the end


class Checkpoint(Settings):
    every_steps: Count = 500  # 0: none
    keep: Positive = 2


class Train(Settings):
    catalog: Path
    out: Path
    target: str
    seed: Count = 0
    model: Model = Model()
    mixture: Mixture = Mixture()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()

    def fingerprint(self) -> str:
        """Of everything that changes the numbers of a run: not where it lies, nor how often it is saved."""
        settings: dict[str, Any] = self.model_dump(mode="json", exclude={"catalog", "out", "checkpoint"})
        return fingerprint("train", 1, settings)
