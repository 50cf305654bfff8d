"""Weights from a rule, from a file and from the log of another run."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from data_catalog.format.tables import WEIGHTS
from tests.helpers.tiny_observation import seeing
from tests.helpers.tiny_run import tiny_run_record
from trainer.mixers.fixed import read_weights, temperature_weights, unimax_weights
from trainer.mixers.replay import read_replay


def test_temperature_flattens_the_weights():
    tokens = np.array([16, 1, 0, 81])
    np.testing.assert_allclose(temperature_weights(tokens, 1.0), tokens / 98, rtol=1e-15)
    np.testing.assert_allclose(
        temperature_weights(tokens, 2.0), [4 / 14, 1 / 14, 0, 9 / 14], rtol=1e-15
    )
    np.testing.assert_allclose(
        temperature_weights(tokens, 4.0), [2 / 6, 1 / 6, 0, 3 / 6], rtol=1e-15
    )
    np.testing.assert_allclose(
        temperature_weights(tokens, 1e12), [1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-9
    )
    with pytest.raises(UserError, match=r"mixture\.mixer"):
        temperature_weights(np.zeros(3, np.int64), 2.0)


@pytest.mark.parametrize(
    ("draws", "drawn"),
    [
        (9, [3, 3, 0, 3]),  # no cap: equal
        (12, [4, 4, 0, 4]),  # the cap of the smallest is just its share
        (20, [8, 4, 0, 8]),  # it leaves one draw, which the others share
        (36, [16, 4, 0, 16]),
        (48, [28, 4, 0, 16]),
        (84, [64, 4, 0, 16]),  # all are drawn four times
        (168, [128, 8, 0, 32]),  # the caps cannot hold, and all are drawn eight times
    ],
)
def test_unimax_fills_up_to_the_cap(draws, drawn):
    sequences = np.array([16, 1, 0, 4])
    weights = unimax_weights(sequences * 1.0, sequences, draws, 4.0)
    np.testing.assert_allclose(weights * draws, drawn, rtol=1e-12)


def test_unimax_of_padded_sequences_has_equal_tokens():
    """With 8, 4 and 2 tokens per sequence, 5, 10 and 4 draws have 40, 40 and 8 tokens."""
    weights = unimax_weights(np.array([80.0, 40.0, 4.0]), np.array([10, 10, 2]), 19, 2.0)
    np.testing.assert_allclose(weights, np.array([40, 40, 8]) / 88)


def test_unimax_of_any_sizes():
    random = np.random.Generator(np.random.Philox(key=1))
    for _ in range(200):
        sequences = random.integers(0, 10 ** random.integers(1, 7), random.integers(1, 50))
        sequences[0] += 1
        epochs = float(random.uniform(0.2, 10))
        draws = int(random.integers(1, 2 * epochs * sequences.sum() + 2))
        sizes = sequences * random.uniform(1, 100, len(sequences))
        weights = unimax_weights(sizes, sequences, draws, epochs)
        assert weights.sum() == pytest.approx(1)
        if draws >= epochs * sequences.sum():
            np.testing.assert_allclose(weights, sizes / sizes.sum())
            continue
        each = np.divide(sequences, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
        drawn = weights * each / (weights * each).sum() * draws
        caps = epochs * sequences
        assert (drawn <= caps * (1 + 1e-9)).all()
        np.testing.assert_allclose(weights[drawn < caps * (1 - 1e-9)], weights.max())


def test_unimax_needs_text():
    with pytest.raises(UserError, match=r"mixture\.mixer"):
        unimax_weights(np.zeros(3), np.zeros(3, np.int64), 10, 4.0)


def write(path, columns):
    if path.suffix == ".json":
        path.write_text(json.dumps(columns))
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.table(columns), path)
    else:
        pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_of_domains_or_names(tmp_path, suffix):
    found = read_weights(
        write(tmp_path / f"d{suffix}", {"domain": [3, 0], "weight": [0.25, 0.75]}), 4, []
    )
    assert found.by == "domain"
    assert found.weights.tolist() == [0.75, 0, 0, 0.25]
    found = read_weights(
        write(
            tmp_path / f"n{suffix}", {"name": ["b", "a"], "weight": [0.25, 0.75], "why": ["", ""]}
        ),
        4,
        ["a", "b", "c"],
    )
    assert found.by == "name"
    assert found.weights.tolist() == [0.75, 0.25, 0]


def test_a_json_object_of_domains_or_names(tmp_path):
    found = read_weights(write(tmp_path / "d.json", {"3": 0.25, "0": 0.75}), 4, [])
    assert (found.by, found.weights.tolist()) == ("domain", [0.75, 0, 0, 0.25])
    found = read_weights(write(tmp_path / "n.json", {"64": 0.25, "law": 0.75}), 4, ["law", "64"])
    assert (found.by, found.weights.tolist()) == ("name", [0.75, 0.25])


def test_rounded_weights_are_normalised(tmp_path):
    found = read_weights(write(tmp_path / "w.json", {"0": 0.333, "1": 0.333, "2": 0.3335}), 3, [])
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.json", {"0": 0.5, "1": 0.6}, "w.json: .* 1.1"),
        ("w.json", {"0": 0.5, "1": -0.5}, "weight of domain 1 is -0.5"),
        ("w.json", {"0": 0.5, "1": "half"}, "weight of domain 1 is half"),
        ("w.json", {"0": 0.5, "4": 0.5}, "domain 4 .* 0 to 3"),
        ("w.json", {"0": 0.5, "tax": 0.5}, "name 0 .* law, natural"),
        ("w.json", {"0": 0.5, "00": 0.5}, "domain 0 "),
        ("w.json", [0.5, 0.5], "w.json: "),
        ("w.json", {}, "w.json: "),
        ("w.csv", {"domain": [0, 1], "weight": [float("nan"), 1.0]}, "weight of domain 0 is None"),
        ("w.csv", {"domain": [0, 1], "weight": [float("inf"), 1.0]}, "weight of domain 0 is inf"),
        ("w.parquet", {"domain": [0, 1], "weight": [None, 1.0]}, "weight of domain 0 is None"),
        ("w.parquet", {"domain": [None, 1], "weight": [0.5, 0.5]}, "domain None is unknown"),
        ("w.parquet", {"domain": [1, 1], "weight": [0.5, 0.5]}, "domain 1 "),
        (
            "w.parquet",
            {"domain": [0], "name": ["law"], "weight": [1.0]},
            "w.parquet: .*domain, name, weight",
        ),
        ("w.csv", {"cluster": [0], "weight": [1.0]}, "w.csv: .* cluster, weight"),
        ("w.csv", {"domain": [0], "tokens": [1.0]}, "w.csv: .* domain, tokens"),
    ],
)
def test_invalid_weights_are_refused(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        read_weights(write(tmp_path / name, content), 4, ["law", "natural"])


@pytest.mark.parametrize(
    "name", ["missing.json", "missing.csv", "missing.parquet", "noise.json", "noise.parquet"]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    if name.startswith("noise"):
        (tmp_path / name).write_text("noise")
    with pytest.raises(UserError, match=f"{name}: "):
        read_weights(tmp_path / name, 4, [])


LOG = [[0.5, 0.5], [0.6, 0.4], [0.9, 0.1]]


def write_run(
    folder, sampling=LOG, first=(0, 80, 160), basis=("law", "natural"), sequence_tokens=16
):
    folder.mkdir(exist_ok=True)
    rows = [
        {"stage": i, "first_sequence": place, "alpha": weights, "sampling": weights, "scores": None}
        for i, (place, weights) in enumerate(zip(first, sampling, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=WEIGHTS), folder / "weights.parquet")
    record = tiny_run_record(basis=basis)
    record["config"]["training"]["sequence_tokens"] = sequence_tokens
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def follow(mixer, steps):
    """Return the sampling weights at each of `steps`, the first of which is 0."""
    state = mixer.start(2)
    return [
        state.sampling.tolist(),
        *(
            mixer.propose(state, seeing([0.0, 0.0], step=step)).sampling.tolist()
            for step in steps[1:]
        ),
    ]


def test_a_replay_follows_the_log_and_keeps_its_last_weights(tmp_path):
    mixer = read_replay(
        write_run(tmp_path / "run"), ["law", "natural"], step_tokens=8 * 16
    )  # 10 steps a stage, as logged
    assert not mixer.needs
    assert follow(mixer, [0, 10, 20, 30, 1000]) == [LOG[0], LOG[1], LOG[2], LOG[2], LOG[2]]
    np.testing.assert_allclose(mixer.start(2).alpha, LOG[0], rtol=1e-15)


@pytest.mark.parametrize(
    ("step_tokens", "steps", "stages"),
    [
        (16 * 16, [0, 5, 10], [0, 1, 2]),  # twice the batch: half the steps
        (8 * 32, [0, 5, 10], [0, 1, 2]),  # twice the length likewise
        (
            8 * 16,
            [0, 4, 8, 12, 16, 20],
            [0, 0, 0, 1, 1, 2],
        ),  # shorter stages change where the log does, or just after
        (8 * 16, [0, 15, 30], [0, 1, 2]),
        (8 * 16, [0, 25], [0, 2]),  # A longer interval skips one.
    ],
)
def test_a_replay_follows_tokens_not_steps(tmp_path, step_tokens, steps, stages):
    mixer = read_replay(
        write_run(tmp_path / "run") / "weights.parquet", ["law", "natural"], step_tokens
    )
    assert follow(mixer, steps) == [LOG[stage] for stage in stages]


def test_a_replay_of_another_basis_is_refused(tmp_path):
    run = write_run(tmp_path / "run")
    for names in (["law", "tax"], ["natural", "law"], ["law"]):
        with pytest.raises(UserError, match=r"mixture\.file .*law, natural"):
            read_replay(run, names, 1)


@pytest.mark.parametrize(
    ("sampling", "first"),
    [
        ([[0.5, 0.6], *LOG[1:]], (0, 80, 160)),
        ([[1.5, -0.5], *LOG[1:]], (0, 80, 160)),
        ([[0.5, float("nan")], *LOG[1:]], (0, 80, 160)),
        (LOG, (0, 80, 80)),
        (LOG, (10, 80, 160)),
        ([[0.2, 0.3, 0.5]] * 3, (0, 80, 160)),
        ([], ()),
    ],
)
def test_a_damaged_log_is_refused(tmp_path, sampling, first):
    with pytest.raises(UserError, match=r"weights\.parquet: "):
        read_replay(write_run(tmp_path / "run", sampling, first), ["law", "natural"], 1)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_replay(tmp_path, ["law"], 1)
    write_run(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json: config"):
        read_replay(tmp_path / "run", ["law"], 1)
