"""The cost of measuring alignment by backend, with 22 members, as DGA does between intervals."""

from argparse import Namespace
from statistics import median

from benchmarks.alignment import UPDATE_INTERVALS, time_updates
from benchmarks.gpu.catalog import TARGETS, write_catalog
from benchmarks.gpu.rows import Part
from benchmarks.scored_training import members, prepare

MEMBERS = 22
SIZES = {
    "cpu": {
        "preset": "tiny",
        "batch": 8,
        "micro": 8,
        "tokens": 32,
        "basis_sequences": 2,
        "target_sequences": 4,
        "trained": 2,
        "rounds": 1,
        "precision": "float32",
    },
    "gpu": {
        "preset": "125m",
        "batch": 64,
        "micro": 32,
        "tokens": 512,
        "basis_sequences": 8,
        "target_sequences": 32,
        "trained": 20,
        "rounds": 3,
        "precision": "bfloat16",
    },
}


def run(part: Part) -> None:
    sizes = Namespace(target=TARGETS[0], **SIZES[part.scale])
    root = write_catalog(part.scratch / "catalog", part.scale)
    bench = prepare(root, sizes)
    finest = bench.inputs.files.levels.leaves
    bench = bench.with_basis(members(bench, finest, MEMBERS))
    count = len(bench.inputs.basis.names)
    plain, updates = time_updates(bench, sizes.basis_sequences, sizes.rounds)
    step = median(seconds for seconds, _ in plain)
    about = (
        f"{sum(p.numel() for p in bench.engine.model.parameters()):,} parameters, "
        f"{sizes.precision}, {sizes.batch} x {sizes.tokens} tokens per step, median of "
        f"{sizes.rounds}"
    )
    part.record("plain step, not compiled", about, ms=1000 * step)
    for name, measured in updates.items():
        seconds, peak = (median(column) for column in zip(*measured, strict=True))
        shares = {
            f"share_of_training_if_every_{interval}_steps": seconds / (interval * step)
            for interval in UPDATE_INTERVALS
        }
        part.record(
            f"N = {count}: {name}",
            f"{sizes.basis_sequences} sequences per member, {sizes.target_sequences} of the target",
            ms=1000 * seconds,
            peak_MB=peak,
            **shares,
        )
