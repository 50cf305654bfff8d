"""Results of an experiment that was never run: 3 fixed mixtures, a learned one and two controls."""

from collections.abc import Sequence

from flows.comparison import Result

# variant: mixer, its loss on the target and on general text at seed 0, control
VARIANTS = {
    "natural": ("natural", 2.0, 1.0, False),
    "half": ("static", 1.5, 1.2, False),
    "worse": ("static", 1.6, 1.3, False),
    "importance": ("importance", 1.4, 1.6, False),
    "dga": ("dga", 1.4, 1.3, False),
    "averaged": ("replay", 1.45, 1.3, False),
    "shuffled": ("dga", 1.55, 1.2, True),
}


def made_up_result(
    variant: str,
    *,
    target: str = "law",
    epochs: float | None = 4.0,
    seed: int = 0,
    name: str | None = None,
) -> Result:
    """Return the result of one of `VARIANTS`. Each seed adds its number in thousandths.

    Args:
        variant: Key of `VARIANTS`.
        target: Target of the run.
        epochs: Repetition of the run.
        seed: Seed of the run. Odd seeds add another half thousandth to learned mixtures.
        name: Name of the variant. Default: `variant`.
    """
    mixer, test, general, control = VARIANTS[variant]
    shift = seed / 1000 + (seed % 2 / 2000 if mixer == "dga" else 0)
    return Result(
        variant=variant if name is None else name,
        mixer=mixer,
        target=target,
        epochs=epochs,
        epochs_alone=3.0 if epochs is None else epochs,
        seed=seed,
        steps=100,
        tokens=200_000 if mixer == "dga" else 250_000,
        parameters=100_000,
        test=round(test + shift, 5),
        validation=round(test + shift, 5),
        general=round(general + shift, 5),
        repeats=1.25,
        seconds=40.0,
        scoring_seconds=8.0 if mixer == "dga" else 0.0,
        control=control,
    )


def made_up_results(
    targets: Sequence[str] = ("law", "code"),
    epochs: Sequence[float | None] = (4.0, 16.0),
    seeds: Sequence[int] = (0, 1, 2),
    variants: Sequence[str] = tuple(VARIANTS),
) -> list[Result]:
    """Return the results of every variant with every target, repetition and seed."""
    return [
        made_up_result(variant, target=target, epochs=repetition, seed=seed)
        for seed in seeds
        for target in targets
        for repetition in epochs
        for variant in variants
    ]
