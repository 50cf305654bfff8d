import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account
from pipeline.parts import make_part
from pipeline.verdicts import kept_batches, kept_key, read_verdicts, write_verdicts
from tests.helpers.parts import source_part, verdicts_part


def verdicts(folder, name, *reasons):
    rows = [
        {"id_int": i, "characters": 1, "failed_rules": 0, "reason": reason}
        for i, reason in enumerate(reasons)
    ]

    def make(out):
        write_verdicts(out / f"{name}.parquet", pa.Table.from_pylist(rows, tables.VERDICTS))
        return Account()

    return make_part(folder, f"verdicts {reasons}", make)


def test_written_verdicts_are_read_back(tmp_path):
    source = source_part(tmp_path / "a", ["x", "y"])
    found = read_verdicts(source, verdicts(tmp_path / "v", "a", None, "rule.x"))
    assert found.schema.equals(tables.VERDICTS)
    assert found["reason"].to_pylist() == [None, "rule.x"]


def test_kept_batches_are_the_kept_rows_in_order(tmp_path):
    source = source_part(tmp_path / "a", ["x", "y", "z"])
    [batch] = kept_batches(source, verdicts_part(tmp_path / "v", [source], {"a": [1]}), ["text"])
    assert batch["text"].to_pylist() == ["x", "z"]


def test_the_key_depends_on_the_part_and_its_kept_rows(tmp_path):
    source, other = (
        source_part(tmp_path / "a", ["x", "y"]),
        source_part(tmp_path / "else" / "a", ["x", "w"]),
    )
    first = kept_key(source, verdicts(tmp_path / "1", "a", None, "rule.x"))
    assert (
        kept_key(source, verdicts(tmp_path / "2", "a", None, "rule.y")) == first
    )  # another reason, the same documents
    assert kept_key(source, verdicts(tmp_path / "3", "a", "rule.x", None)) != first
    assert kept_key(source, verdicts(tmp_path / "4", "a", None, None)) != first
    assert kept_key(other, verdicts(tmp_path / "1", "a", None, "rule.x")) != first


def test_the_key_does_not_need_stored_verdicts(tmp_path):
    source = source_part(tmp_path / "a", ["x", "y", "z"])
    plain = verdicts_part(tmp_path / "plain", [source], {"a": [1]})
    assert b"clustermix.kept" not in (pq.read_schema(plain.folder / "a.parquet").metadata or {})
    assert kept_key(source, plain) == kept_key(
        source, verdicts(tmp_path / "said", "a", None, "dedup.digest", None)
    )


def test_masks_of_different_length_have_different_keys(tmp_path):
    """They are packed into bytes: nine dropped rows and ten make the same two."""
    source = source_part(tmp_path / "a", ["x"])
    nine, ten = (verdicts(tmp_path / str(n), "a", *["rule.x"] * n) for n in (9, 10))
    assert kept_key(source, nine) != kept_key(source, ten)
