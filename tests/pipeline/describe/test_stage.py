import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.layout import Levels
from pipeline.describe.stage import describe_part
from pipeline.parts import make_part

LEVELS = Levels((2, 4))


def shard(folder, rows):
    """Store rows of (leaf, text, distance, source). Document i of the part NAME is NAME/i."""
    full = [
        {
            "doc_id": f"{folder.name}/{i}",
            "id_int": i,
            "leaf": leaf,
            "text": text,
            "distance": distance,
            "source": source,
        }
        | {"tokens": 10, "characters": len(text), "language": "en" if i else None}
        for i, (leaf, text, distance, source) in enumerate(rows)
    ]

    def make(out):
        pq.write_table(pa.Table.from_pylist(full, tables.DOCUMENTS), out / "documents.parquet")
        return Account(read=Tally(rows=len(rows)), kept=Tally(rows=len(rows)))

    return make_part(folder, str(rows), make)


SEA = [
    (0, "whales swim whales", 0.375, "sea"),
    (0, "whales dive", 0.125, "sea"),
    (1, "stars shine 42", 0.25, "sky"),
]


@pytest.fixture
def part(tmp_path):
    return describe_part([shard(tmp_path / "0", SEA)], tmp_path / "described", LEVELS)


def test_sizes_distances_and_names_of_the_domains_that_hold_documents(part):
    columns = [
        "level",
        "domain",
        "documents",
        "tokens",
        "mean_distance",
        "distance_quantiles",
        "top_sources",
        "languages",
    ]
    rows = [
        tuple(row.values())
        for row in pq.read_table(part.folder / "domains.parquet", columns=columns).to_pylist()
    ]
    sea = [{"name": "sea", "share": 1.0}]
    assert rows == [
        (
            *(2, 0, 3, 30, 0.25, pytest.approx([0.1375, 0.1875, 0.25, 0.3125, 0.3625])),
            [
                {"name": "sea", "share": pytest.approx(2 / 3)},
                {"name": "sky", "share": pytest.approx(1 / 3)},
            ],
            [
                {"name": "en", "share": pytest.approx(2 / 3)},
                {"name": None, "share": pytest.approx(1 / 3)},
            ],
        ),
        (
            4,
            0,
            2,
            20,
            0.25,
            pytest.approx([0.1375, 0.1875, 0.25, 0.3125, 0.3625]),
            sea,
            [{"name": n, "share": 0.5} for n in ("en", None)],
        ),
        (
            4,
            1,
            1,
            10,
            0.25,
            [0.25] * 5,
            [{"name": "sky", "share": 1.0}],
            [{"name": "en", "share": 1.0}],
        ),
    ]
    assert part.account.kept == Tally(rows=3)


def test_examples_are_listed_per_domain_and_in_a_table(part):
    rows = pq.read_table(
        part.folder / "domains.parquet", columns=["nearest", "typical", "boundary"]
    ).to_pylist()
    assert rows == [
        {
            "nearest": ["0/1", "0/2", "0/0"],
            "typical": ["0/1", "0/2", "0/0"],
            "boundary": ["0/0", "0/2", "0/1"],
        },
        {"nearest": ["0/1", "0/0"], "typical": ["0/1", "0/0"], "boundary": ["0/0", "0/1"]},
        {"nearest": ["0/2"], "typical": ["0/2"], "boundary": ["0/2"]},
    ]
    shown = pq.read_table(part.folder / "examples.parquet")
    assert shown.schema.equals(tables.EXAMPLES)
    assert shown.num_rows == 9 + 6 + 3


def test_a_top_domain_in_several_parts_is_described_as_one(part, tmp_path):
    cut = [shard(tmp_path / "0", SEA[:1]), shard(tmp_path / "1", SEA[1:])]
    again = describe_part(cut, tmp_path / "again", LEVELS)
    columns = ["level", "domain", "documents", "mean_distance", "distance_quantiles", "top_sources"]
    assert pq.read_table(again.folder / "domains.parquet", columns=columns) == pq.read_table(
        part.folder / "domains.parquet", columns=columns
    )
    assert again.fingerprint != part.fingerprint


def test_a_top_domain_without_documents_has_no_rows(tmp_path):
    empty = describe_part([shard(tmp_path / "0", [])], tmp_path / "described", LEVELS)
    assert (
        pq.read_table(empty.folder / "domains.parquet").num_rows
        == pq.read_table(empty.folder / "examples.parquet").num_rows
        == 0
    )


def test_the_same_documents_give_the_same_bytes(part, tmp_path):
    again = describe_part([shard(tmp_path / "0", SEA)], tmp_path / "again", LEVELS)
    for name in ("domains.parquet", "examples.parquet", "words.parquet", "counts.npz"):
        assert (again.folder / name).read_bytes() == (part.folder / name).read_bytes()
