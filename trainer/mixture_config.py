"""Settings of the mixture and of the way it is learned."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data_catalog.settings import LocalPath, Settings

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
MixerName = Literal[
    "natural",
    "uniform",
    "temperature",
    "unimax",
    "static",
    "importance",
    "dga",
    "doge",
    "doremi",
    "odm",
    "ado",
    "replay",
]
Scores = Literal["raw", "clipped", "cosine", "normalised", "target"]
AlignmentBackend = Literal["exact", "ghost", "finite_difference"]
ReplayOrder = Literal["logged", "averaged", "permuted"]
OdmForm = Literal["linear", "exponential"]
ObjectiveKind = Literal["text", "answer", "choices"]
TargetWeights = Literal["fixed", "improvement"]

LEARNING = ("dga", "doge", "doremi", "odm", "ado")  # mixers whose weights change during training
ALIGNING = ("dga", "doge")  # mixers that need gradients
CLIPPED_SCORES = ("clipped", "cosine")  # scalings that need the norm of every member's gradient
REPETITION = 15.0  # R* of Muennighoff et al. 2023, which is 15.4 there
LIMIT = r"^.+\+ *\d+(\.\d+)?$"
GENERAL = "general"  # name of the corpus itself among `mixture.targets`
# Mixture settings that older runs do not have, with the values that such runs behave like.
WITHOUT_EFFECT: dict[str, Any] = {
    "prior": "even",
    "target_share": None,
    "repetition": 0.0,
    "pull": 0.0,
    "maximum_tilt": None,
    "updates": 30,
    "replay_order": "logged",
    "shuffled_scores": False,
    "odm_form": "exponential",
    "targets": {},
    "target_weights": "fixed",
    "general_loss_at_most": None,
    "maximum_epochs": 4.0,
    "probes": "random",
    "measure_steps": 1,
}


class Mixture(Settings):
    """Mixture of domains, and the way it is learned."""

    mixer: MixerName = "dga"
    """Method that sets the weights."""
    basis: Literal["distributions", "domains"] = "distributions"
    """Members that a learning mixer weights: basis distributions, or single domains."""
    level: Positive | None = None
    """Granularity of the domains. If not given, the finest."""
    kind: Literal["hard", "distance"] = "distance"
    """Kind of the basis distributions. `hard`: counts of the nearest domain. `distance`: soft
    assignment by distance."""
    names: tuple[str, ...] = ()
    """Names of the basis distributions. If empty, all of this kind, `natural` and `uniform`. With
    `prior = "target"` the mixer `dga` always has those of its targets and `natural`."""
    temperature: Above = 2.0
    """Temperature T of the mixer `temperature`, whose weights are proportional to
    tokens ** (1 / T)."""
    maximum_epochs: Above = 4.0
    """Epochs N of the mixer `unimax`. Domains that equal weights would draw more than N times are
    drawn N times, and the others share the rest equally. In a run of more than N epochs of all
    data, every domain is drawn equally often. A hard limit is `data.max_epochs`."""
    file: LocalPath | None = None
    """Weights. For the mixer `static`, a table with columns `domain` (or `name`) and `weight`. For
    the mixer `replay`, the folder of a run or its `weights.parquet`."""
    replay_order: ReplayOrder = "logged"
    """Order in which the mixer `replay` follows the logged weights. `averaged` (their mean in every
    interval) and `permuted` (a random order) are controls of an experiment."""
    shuffled_scores: bool = False
    """Give every member the score of a random other one: a control of an experiment, in which
    learning must not help."""
    reference: LocalPath | None = None
    """Folder of the reference model of the mixer `doremi`, such as `model/` of a run."""
    odm_form: OdmForm = "linear"
    """Weights of the mixer `odm`. `linear`: in proportion to the rewards, as in its released code.
    `exponential`: as in the paper, which fades to equal weights."""
    start: str | None = None
    """Member that gets half of the initial weight. The others share the rest evenly. If not given,
    all members have the same initial weight."""
    targets: dict[str, Above] = Field(default_factory=dict)
    """Targets that the mixture is made for, with their weights, such as
    `{law = 1.0, general = 0.5}`. `general` is the corpus itself. The gradients of the targets are
    scaled to one norm before they are added. If empty, the run's target alone."""
    target_weights: TargetWeights = "fixed"
    """Weights of several targets during the run. `fixed`: those of `targets`. `improvement`: they
    start there and move toward the targets whose losses have the smallest relative decrease."""
    general_loss_at_most: Annotated[str, Field(pattern=LIMIT)] | None = None
    """Limit on the loss on general text: the folder of a run, such as one on the natural mixture,
    and by how much the loss may exceed that run's, in nats per token: `runs/natural + 0.05`. The
    mixture moves toward `natural` while the loss is above."""
    prior: Literal["even", "target"] = "target"
    """Initial weights of the mixer `dga`, which its updates are pulled back to. `even`: the same
    weight for all members. `target`: the target's own distribution and `natural`."""
    target_share: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None = None
    """Share of the target's own distribution in a mixture with `natural`: in the prior of the mixer
    `dga`, or in all of the mixer `static`. `auto`, also if not given for `dga`: all but a tenth of
    the draws that would repeat sequences if the run drew from the target's own distribution alone,
    so from 0.9 to 0.98, which is the maximum."""
    repetition: Annotated[float, Field(ge=0)] | None = None
    """Number of repetitions after which repeating a domain's data is worth little. Domains that the
    run repeats are drawn less often than their weights say. 0: exactly as their weights say. If not
    given, 15 for the mixers `dga` and `replay`, and 0 for the others."""
    pull: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the prior in every update of the mixer `dga`."""
    maximum_tilt: Above | None = None
    """Maximum of KL(weights || prior) of the mixer `dga`, in nats. If not given, there is no
    maximum."""
    eta: Above | None = None
    """Step size of mirror ascent. If not given, the published value of the mixer."""
    ema: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the new weights in the moving average. 1 disables averaging."""
    scores: Scores = "target"
    """Scaling of the gradients that are compared. See docs/training.md. If not given, `clipped` for
    the mixer `doge`."""
    toward: Literal["target", "members"] = "target"
    """Gradient that the mixer `doge` aligns with: the target's, or the sum of those of the other
    members."""
    preconditioned: bool = False
    """Precondition the target's gradient like a step of the optimizer."""
    most_change: Above | None = None
    """Maximum of KL(new weights || old weights) per update, in nats. If not given, there is no
    maximum."""
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the total weight that is always spread evenly over all members."""
    error_aware: bool = True
    """Shrink scores in proportion to the noise that their standard errors indicate. If not given,
    false with the backend `exact`, for which errors cost extra."""
    backend: AlignmentBackend = "ghost"
    """Method that measures gradient alignment. `exact`: a backward pass per member. `ghost`: scores
    per sequence from one backward pass. `finite_difference`: two forward passes per sequence. If
    not given, `exact` for the mixer `doge` and for scores that need the norms of all gradients."""
    measure_on: Literal["probes", "batch"] = "batch"
    """Sequences that are measured: new sequences of each member, or the last training batches
    before the update. If not given, `probes` with the backend `exact` and for the mixer `doge`."""
    measure_steps: Positive = 1
    """Number of last training batches before an update that are measured if `measure_on` is
    `batch`. Each is compared with a gradient of the target of its own."""
    probes: Literal["random", "next"] = "random"
    """New sequences that each member is measured on. `random`: any sequences of its domains.
    `next`: those that the run would draw next from the member alone, within the bounds of
    `data`."""
    updates: Positive = 30
    """Number of updates of the weights in a run, if `update_every_steps` is 0."""
    update_every_steps: Count = 0
    """Number of optimizer steps between updates of the weights. 0: as many as give `updates`, or
    more if measuring would take over 2 % of the training's work."""
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
    objective: ObjectiveKind = "text"
    """Objective on the target. `text`: loss on all tokens. `answer`: loss on the answer's tokens.
    `choices`: loss of selecting the correct choice."""
    answer_after: str = "\nAnswer:"
    """Text that precedes the answer."""

    @property
    def learns(self) -> bool:
        """True if the weights change during training."""
        return self.mixer in LEARNING

    @property
    def discount(self) -> float:
        """Number of repetitions after which repeating is worth little. 0: no discount."""
        if self.repetition is None:
            return REPETITION if self.mixer in ("dga", "replay") else 0.0
        return self.repetition

    def target_shares(self, target: str) -> dict[str, float]:
        """Return the shares of the targets that the mixture is made for, which sum to 1.

        `general` is among them, perhaps with a share of 0, if `general_loss_at_most` can raise it.

        Args:
            target: the run's target, which is used alone if no `targets` are given.
        """
        given = dict(self.targets or {target: 1.0})
        if self.general_loss_at_most is not None:
            given.setdefault(GENERAL, 0.0)
        total = sum(given.values())
        return {name: weight / total for name, weight in given.items()}

    @property
    def aligns_with_members(self) -> bool:
        """True if a member's gradient is compared with the sum of the other members'."""
        return self.mixer == "doge" and self.toward == "members"

    @property
    def has_target_prior(self) -> bool:
        """True if the updates start from the target's own distribution and `natural`."""
        return self.mixer == "dga" and self.prior == "target"

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, given: Any) -> Any:
        """Complete the settings of an older run, and the defaults that depend on other settings."""
        if not isinstance(given, Mapping):
            return given
        if is_from_a_run(given):
            return {**WITHOUT_EFFECT, **given}
        settings = dict(given)
        if settings.get("mixer") == "doge":
            settings.setdefault("scores", "clipped")  # as published
        other = settings.get("mixer", "dga") != "dga"
        if other or settings.get("scores") in CLIPPED_SCORES:
            settings.setdefault("backend", "exact")
        if other or settings.get("backend") == "exact":
            settings.setdefault("measure_on", "probes")
            settings.setdefault("error_aware", False)
        return settings

    @model_validator(mode="after")
    def _targets_fit(self) -> "Mixture":
        if self.targets and not (
            self.mixer in ALIGNING or (self.mixer == "static" and self.target_share is not None)
        ):
            raise ValueError(
                f'mixture.targets: mixer = "{self.mixer}" does not use targets. Remove targets, or '
                'set mixer = "dga"'
            )
        if self.target_weights == "improvement" and (len(self.targets) < 2 or self.mixer != "dga"):
            raise ValueError(
                'mixture.target_weights = "improvement" needs mixer = "dga" and at least two '
                f'targets, found mixer = "{self.mixer}" and {len(self.targets)} in targets. Set '
                'them, or set target_weights = "fixed"'
            )
        if self.general_loss_at_most is not None and not self.has_target_prior:
            raise ValueError(
                'mixture.general_loss_at_most needs mixer = "dga" with prior = "target". Remove '
                "general_loss_at_most, or set them"
            )
        if self.targets and self.aligns_with_members:
            raise ValueError(
                'mixture.targets: toward = "members" does not use targets. Remove targets, or set '
                'toward = "target"'
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> "Mixture":
        if self.mixer == "replay" and self.file is None:
            raise ValueError(
                'mixer = "replay" needs mixture.file. Give the path of the folder of a run'
            )
        if self.mixer == "static" and (self.file is None) == (self.target_share is None):
            raise ValueError(
                'mixer = "static" needs either mixture.file or mixture.target_share. Give the path '
                "of a table of weights, or the share of the target's own distribution"
            )
        if self.mixer == "doremi" and self.reference is None:
            raise ValueError(
                'mixer = "doremi" needs mixture.reference. Give the folder of a reference model'
            )
        if self.mixer in ALIGNING and self.backend != "exact" and self.scores in CLIPPED_SCORES:
            raise ValueError(
                f'scores = "{self.scores}" needs the norms of all gradients, which only '
                'backend = "exact" computes. Set backend = "exact" or scores = "normalised"'
            )
        if self.aligns_with_members and (self.backend != "exact" or self.preconditioned):
            raise ValueError(
                'toward = "members" leaves a member\'s own gradient out of the sum, which only '
                'backend = "exact" without preconditioned can do. Set backend = "exact" and '
                "preconditioned = false"
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
        if self.measure_steps > 1 and self.measure_on != "batch":
            raise ValueError(
                f'measure_steps = {self.measure_steps} needs measure_on = "batch", found '
                f'"{self.measure_on}". Set measure_on = "batch" or measure_steps = 1'
            )
        if 0 < self.update_every_steps < self.measure_steps:
            raise ValueError(
                f"measure_steps is {self.measure_steps}, but an update comes every "
                f"{self.update_every_steps} steps. Lower measure_steps or raise update_every_steps"
            )
        if self.error_aware and self.scores in CLIPPED_SCORES:
            raise ValueError(
                f'error_aware needs standard errors, which scores = "{self.scores}" does not '
                'have. Set scores = "normalised" or "raw"'
            )
        return self


def is_from_a_run(mixture: Any) -> bool:
    """Return whether these are the complete settings of a mixture, as the record of a run has."""
    complete = Mixture.model_fields.keys() - WITHOUT_EFFECT.keys()
    return isinstance(mixture, Mapping) and mixture.keys() >= complete
