"""A sound catalog has no faults. Each kind of damage gives a sentence that names the file."""

import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import read_manifest
from data_catalog.verify import check
from tests.helpers.manifests import accept_files

DOCUMENTS = [f"documents/top={top:04d}/part-0000.parquet" for top in range(2)]
TOKENS = [f"tokens/top={top:04d}/part-0000.arrow" for top in range(2)]


@pytest.fixture
def catalog(built, tmp_path):
    shutil.copytree(built[0], tmp_path / "catalog", ignore=shutil.ignore_patterns("work"))
    return tmp_path / "catalog"


def rewrite(path, change):
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def test_a_sound_catalog(catalog):
    report = check(catalog)
    manifest = read_manifest(catalog)
    assert report.faults == ()
    assert (report.version, report.documents, report.files) == (1, 160, len(manifest.files))
    assert report.tokens == manifest.tokens > 160
    assert report.distributions == 8
    assert report.bytes == sum((catalog / name).stat().st_size for name in manifest.files)


def test_each_damaged_file_is_one_fault(catalog):
    layout = Layout(catalog)
    for path in (layout.documents(0), layout.domains, layout.tokens(1), layout.distributions):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    layout.accounting.unlink()
    layout.offsets.write_bytes(b"PAR1")
    expected = read_manifest(catalog).files["versions/0001/offsets.parquet"].bytes
    assert sorted(check(catalog).faults) == [
        "documents/top=0000/part-0000.parquet: checksum differs",
        "tokens/top=0001/part-0000.arrow: checksum differs",
        "versions/0001/accounting.parquet: missing",
        "versions/0001/distributions.parquet: checksum differs",
        "versions/0001/domains.parquet: checksum differs",
        f"versions/0001/offsets.parquet: 4 bytes, expected {expected}",
    ]


def test_an_unreadable_file_with_the_recorded_checksum_is_a_fault(catalog):
    layout = Layout(catalog)
    paths = [layout.documents(0), layout.distributions, layout.tokens(1)]
    for path in paths:
        path.write_bytes(b"this is no table")
    accept_files(catalog, *paths)
    faults = check(catalog).faults
    assert [fault.split(" (")[0] for fault in faults] == [
        "documents/top=0000/part-0000.parquet: cannot be read",
        "tokens/top=0001/part-0000.arrow: cannot be read",
        "versions/0001/distributions.parquet: cannot be read",
    ]
    assert "\n" not in "".join(faults)


def test_rows_out_of_order_are_a_fault(catalog):
    path = Layout(catalog).documents(1)
    rewrite(path, lambda table: table.sort_by([("leaf", "descending")]))
    accept_files(catalog, path)
    assert check(catalog).faults == (
        f"{DOCUMENTS[1]}: rows are not sorted by leaf inside top-level domain 1",
        f"{TOKENS[1]}: document lengths differ from those in {DOCUMENTS[1]}",
    )


def test_rows_of_another_domain_are_a_fault(catalog):
    path = Layout(catalog).documents(1)
    rewrite(
        path,
        lambda table: table.set_column(
            table.schema.get_field_index("leaf"),
            "leaf",
            pc.subtract(table["leaf"], pa.scalar(2, pa.uint32())),
        ),
    )
    accept_files(catalog, path)
    assert check(catalog).faults == (
        f"{DOCUMENTS[1]}: rows are not sorted by leaf inside top-level domain 1",
    )


def test_a_missing_document_is_a_fault(catalog):
    path = Layout(catalog).documents(0)
    rewrite(path, lambda table: table.slice(1))
    accept_files(catalog, path)
    assert check(catalog).faults == (
        f"{DOCUMENTS[0]}: leaves, splits or token counts differ from the offsets",
        f"{TOKENS[0]}: document lengths differ from those in {DOCUMENTS[0]}",
    )


def test_incomplete_offsets_are_a_fault(catalog):
    path = Layout(catalog).offsets
    rewrite(path, lambda table: table.slice(0, table.num_rows - 1))
    accept_files(catalog, path)
    faults = check(catalog).faults
    assert faults[0].startswith("versions/0001/offsets.parquet: covers ")
    assert faults[0].endswith(
        f"The manifest counts 160 documents and {read_manifest(catalog).tokens} tokens"
    )
    assert faults[1] == f"{DOCUMENTS[1]}: leaves, splits or token counts differ from the offsets"
    assert [fault.split(":")[0] for fault in faults[2:]] == ["versions/0001/domains.parquet"] * 2


def test_a_file_without_offsets_is_a_fault(catalog):
    layout = Layout(catalog)
    shutil.copy(layout.documents(0), layout.documents(0, 7))
    accept_files(catalog, layout.documents(0, 7))
    assert check(catalog).faults == (
        "documents/top=0000/part-0007.parquet: is in the manifest, but not in the offsets",
    )


def test_weights_that_do_not_sum_to_one_are_a_fault(catalog):
    path = Layout(catalog).distributions
    rewrite(path, lambda table: table.set_column(4, "weight", pc.multiply(table["weight"], 1.001)))
    accept_files(catalog, path)
    faults = check(catalog).faults
    assert len(faults) == 8
    [natural] = [fault for fault in faults if "natural (natural, level 2)" in fault]
    assert natural == (
        "versions/0001/distributions.parquet: natural (natural, level 2) sums to 1.001000000, "
        "expected 1"
    )


def test_an_account_that_does_not_add_up_is_a_fault(catalog):
    path = Layout(catalog).accounting
    rewrite(
        path,
        lambda table: table.filter(pc.not_equal(pc.fill_null(table["reason"], ""), "dedup.digest")),
    )
    accept_files(catalog, path)
    [fault] = check(catalog).faults
    assert fault.startswith("versions/0001/accounting.parquet: dedup read 1 rows, ")


def test_a_target_without_its_tokens_is_a_fault(catalog):
    folder = Layout(catalog).target("space")
    rewrite(folder / "documents.parquet", lambda table: table.slice(1))
    accept_files(catalog, folder / "documents.parquet")
    assert check(catalog).faults == (
        "targets/space: tokens.arrow and documents.parquet have other documents",
    )


def test_a_missing_catalog_or_version_is_refused(catalog, tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}: .*catalog\.json"):
        check(tmp_path)
    with pytest.raises(UserError, match="version 2"):
        check(catalog, 2)
