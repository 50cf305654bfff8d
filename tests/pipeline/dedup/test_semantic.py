import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.encoder_identity import Identity
from data_catalog.format.layout import Levels
from pipeline.config import Dedup
from pipeline.dedup.semantic import comparison_cells, drop_near, near_part, nearest_kept
from pipeline.parts import make_part
from pipeline.verdicts import read_verdicts
from tests.helpers.parts import assigned_part, source_part, verdicts_part

LEVELS = Levels((2, 4))


def embedded_part(folder, angles):
    """Vectors in the plane, by angle in degrees: the cosine of two is that of their difference."""
    radians = np.deg2rad(np.array(angles, np.float64))
    return vectors_part(folder, np.stack([np.cos(radians), np.sin(radians)], axis=1))


def vectors_part(folder, vectors):
    def make(out):
        np.save(out / "embeddings.npy", vectors.astype(np.float16), allow_pickle=False)
        (out / "encoder.json").write_text(json.dumps(identity()))
        return Account()

    return make_part(folder, f"embedded {vectors.tolist()}", make)


def identity():
    known = {"model": "m", "sha256": "0", "dimension": 2, "max_tokens": 8, "precision": "float32"}
    return {name: value for name, value in known.items() if name in Identity.model_fields}


@pytest.fixture
def made(tmp_path):
    """Two parts, of which document a/2 is dropped before.

    Leaves 0 and 1 form one top-level domain, and 2 and 3 the other.
    """
    sources = [
        source_part(tmp_path / "source" / name, texts)
        for name, texts in (("a", ["p", "qq", "-", "r"]), ("b", ["s", "tt", "u"]))
    ]
    unique = verdicts_part(tmp_path / "dedup", sources, {"a": [2]})
    embedded = [
        embedded_part(tmp_path / "embed" / "a", [0, 90, 1]),
        embedded_part(tmp_path / "embed" / "b", [20, 90, 92]),
    ]
    assigned = [
        assigned_part(tmp_path / "assign" / "a", [0, 2, 1]),
        assigned_part(tmp_path / "assign" / "b", [0, 3, 2]),
    ]
    return sources, unique, embedded, assigned


def find_near(folder, embedded, assigned, cosine):
    return [
        near_part(
            top, embedded, assigned, folder / f"near-{cosine}" / str(top), LEVELS, config(cosine)
        )
        for top in (0, 1)
    ]


def config(cosine):
    return Dedup(tiers=["semantic"], cosine=cosine)


def test_near_names_the_nearest_earlier_document_of_the_domain_that_stays(tmp_path, made):
    _, _, embedded, assigned = made
    near = find_near(tmp_path, embedded, assigned, 0.9)
    tops = [pq.read_table(part.folder / "near.parquet") for part in near]
    assert all(table.schema.equals(tables.NEAR) for table in tops)
    first = [
        {"part": 0, "row": 2, "nearest_part": 0, "nearest_row": 0},
        {"part": 1, "row": 0, "nearest_part": 0, "nearest_row": 0},
    ]
    second = [
        {"part": 1, "row": 1, "nearest_part": 0, "nearest_row": 1},
        {"part": 1, "row": 2, "nearest_part": 0, "nearest_row": 1},
    ]
    assert tops[0].drop_columns("cosine").to_pylist() == first
    assert tops[1].drop_columns("cosine").to_pylist() == second
    cosines = np.concatenate([table["cosine"].to_numpy() for table in tops])
    assert cosines == pytest.approx(np.cos(np.deg2rad([1, 20, 0, 2])), abs=1e-3)
    assert cosines[2] == 1
    assert [part.account.kept.rows for part in near] == [3, 3]


def test_only_documents_of_one_cell_are_compared(tmp_path, made, monkeypatch):
    _, _, embedded, assigned = made
    monkeypatch.setattr(
        "pipeline.dedup.semantic.comparison_cells",
        lambda leaves, levels: comparison_cells(leaves, levels, 2),
    )
    part = near_part(1, embedded, assigned, tmp_path / "small" / "1", LEVELS, config(0.9))
    assert pq.read_table(part.folder / "near.parquet", columns=["part", "row"]).to_pylist() == [
        {"part": 1, "row": 2}
    ]


@pytest.mark.parametrize(
    ("cosine", "a", "b", "dropped"),
    [
        (
            0.9,
            [None, None, "rule.x", "dedup.semantic"],
            ["dedup.semantic"] * 3,
            Tally(rows=4, characters=5),
        ),
        (
            0.95,
            [None, None, "rule.x", "dedup.semantic"],
            [None, "dedup.semantic", "dedup.semantic"],
            Tally(rows=3, characters=4),
        ),
        (
            1.0,
            [None, None, "rule.x", None],
            [None, "dedup.semantic", None],
            Tally(rows=1, characters=2),
        ),
    ],
)
def test_documents_below_the_threshold_stay(tmp_path, made, cosine, a, b, dropped):
    sources, unique, embedded, assigned = made
    near = find_near(tmp_path, embedded, assigned, cosine)
    part = drop_near(near, sources, [unique] * len(sources), tmp_path / "final")
    assert [read_verdicts(source, part)["reason"].to_pylist() for source in sources] == [a, b]
    assert all(read_verdicts(source, part).schema.equals(tables.VERDICTS) for source in sources)
    kept = Tally(rows=6 - dropped.rows, characters=8 - dropped.characters)
    assert part.account == Account(
        read=Tally(rows=6, characters=8), kept=kept, dropped={"dedup.semantic": dropped}
    )


def test_another_threshold_or_order_makes_the_parts_again(tmp_path, made):
    sources, unique, embedded, assigned = made
    keys = []
    for cosine in (0.9, 0.95, 0.9):
        near = find_near(tmp_path, embedded, assigned, cosine)
        final = drop_near(near, sources, [unique] * len(sources), tmp_path / "final")
        keys.append([*(part.fingerprint for part in near), final.fingerprint])
    assert keys[0] == keys[2]
    assert not {*keys[0]} & {*keys[1]}
    [other, _] = find_near(tmp_path / "other", embedded, assigned[::-1], 0.9)
    assert other.fingerprint != keys[0][0]


def test_in_a_chain_each_second_one_stays(tmp_path):
    """Each is near only to the one before: a copy of a copy is not a copy."""
    sources = [source_part(tmp_path / "source" / "a", list("abcde"))]
    unique = verdicts_part(tmp_path / "dedup", sources)
    embedded, assigned = (
        [embedded_part(tmp_path / "embed" / "a", [0, 15, 30, 45, 61])],
        [assigned_part(tmp_path / "assign" / "a", [0] * 5)],
    )
    near = find_near(tmp_path, embedded, assigned, 0.96)
    part = drop_near(near, sources, [unique], tmp_path / "final")
    reasons = read_verdicts(sources[0], part)["reason"].to_pylist()
    assert reasons == [None, "dedup.semantic", None, "dedup.semantic", None]


def test_equal_vectors_have_a_cosine_of_one(tmp_path):
    """With `cosine = 1`, documents with equal vectors are dropped despite rounding in float32."""
    vectors = np.random.Generator(np.random.Philox(key=2)).standard_normal((20, 384))
    embedded = [vectors_part(tmp_path / "embed" / "a", np.concatenate([vectors, vectors]))]
    near = near_part(
        0,
        embedded,
        [assigned_part(tmp_path / "assign" / "a", [0] * 40)],
        tmp_path / "near" / "0",
        LEVELS,
        config(1.0),
    )
    table = pq.read_table(near.folder / "near.parquet")
    assert table["row"].to_pylist() == list(range(20, 40))
    assert table["cosine"].to_pylist() == [1.0] * 20


def test_a_domain_without_documents(tmp_path):
    embedded, assigned = (
        [embedded_part(tmp_path / "embed" / "a", [0])],
        [assigned_part(tmp_path / "assign" / "a", [0])],
    )
    part = near_part(1, embedded, assigned, tmp_path / "near" / "1", LEVELS, config(0.9))
    assert pq.read_table(part.folder / "near.parquet").schema.equals(tables.NEAR)
    assert part.account == Account()


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
def test_blocks_of_any_size_find_the_same(block):
    generator = np.random.Generator(np.random.Philox(key=1))
    x = generator.standard_normal((40, 3)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x[13] = x[0]
    cosine, nearest = nearest_kept(lambda members: x[members], 40, 0.9, block)
    assert (cosine[0], nearest[0], nearest[13]) == (-np.inf, -1, 0)
    kept = [0]
    for i in range(1, 40):
        products = x[kept] @ x[i]
        assert cosine[i] == pytest.approx(products.max(), abs=1e-5)
        assert nearest[i] == (-1 if products.max() < 0.9 else kept[products.argmax()])
        kept += [i] if products.max() < 0.9 else []
    assert 5 < len(kept) < 35


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (6, [[0, 1, 2, 3, 4, 5]]),
        (5, [[0, 1, 4], [2, 3, 5]]),
        (2, [[0, 4], [1], [2, 5], [3]]),
        (1, [[0, 4], [1], [2, 5], [3]]),  # a leaf is not cut
    ],
)
def test_cells_are_the_coarsest_domains_that_are_small_enough(most, expected):
    leaves = np.array([0, 1, 2, 3, 0, 2])
    assert (
        sorted(members.tolist() for members in comparison_cells(leaves, LEVELS, most)) == expected
    )
    assert comparison_cells(leaves[:0], LEVELS, most) == []
