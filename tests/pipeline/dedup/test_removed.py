import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from pipeline.dedup import removed
from pipeline.dedup.removed import removed_by_source
from tests.helpers.parts import source_part, verdicts_part


@pytest.mark.parametrize("merge_rows", [0, 1_000_000])
def test_rows_characters_and_share_of_each_source(tmp_path, monkeypatch, merge_rows):
    monkeypatch.setattr("pipeline.dedup.removed._MERGE_ROWS", merge_rows)
    sources = [
        source_part(tmp_path / "a", ["x", "yy", "zzz"], "site"),
        source_part(tmp_path / "b", ["x", "yyyy"], "site"),
        source_part(tmp_path / "c", ["w"] * 4, "other"),
        source_part(tmp_path / "d", ["kept"], "clean"),
        source_part(tmp_path / "e", [], "empty"),
    ]
    verdicts = verdicts_part(tmp_path / "v", sources, {"a": [1], "b": [1], "c": [0, 1, 2]})
    found = removed_by_source(sources, [verdicts] * len(sources))
    assert found.schema.equals(tables.REMOVED)
    assert found.to_pylist() == [
        {"reason": "rule.x", "source": "other", "rows": 3, "characters": 3, "share": 0.75},
        {"reason": "rule.x", "source": "site", "rows": 2, "characters": 6, "share": 0.4},
    ]


def test_documents_without_a_source_are_counted_together(tmp_path):
    source = source_part(tmp_path / "a", ["x", "yy"], "site")
    table = pq.read_table(source.folder / "documents.parquet")
    nothing = pa.array(["site", None])
    pq.write_table(
        table.set_column(table.schema.get_field_index("source"), "source", nothing),
        source.folder / "documents.parquet",
    )
    found = removed_by_source([source], [verdicts_part(tmp_path / "v", [source], {"a": [1]})])
    assert found.to_pylist() == [
        {"reason": "rule.x", "source": None, "rows": 1, "characters": 2, "share": 1.0}
    ]


def test_nothing_removed_is_an_empty_table(tmp_path):
    source = source_part(tmp_path / "a", ["x"])
    assert removed_by_source([source], [verdicts_part(tmp_path / "v", [source])]).num_rows == 0
    assert removed_by_source([], []).schema.equals(tables.REMOVED)


def test_the_counts_are_not_added_up_again_after_every_part(tmp_path, monkeypatch):
    sources = [source_part(tmp_path / f"{i}", ["x"], f"site-{i}") for i in range(40)]
    final = verdicts_part(tmp_path / "v", sources, {part.name: [0] for part in sources})
    added, add = [], removed._sum
    monkeypatch.setattr(removed, "_MERGE_ROWS", 4)
    monkeypatch.setattr(removed, "_sum", lambda counts: added.append(len(counts)) or add(counts))
    assert removed_by_source(sources, [final] * 40).num_rows == 40
    assert sum(added) < 40 * 6  # 860 if all are added up after every part
