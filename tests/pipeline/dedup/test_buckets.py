"""Records of buckets, on a disk and in an object store."""

import tempfile
import uuid

import numpy as np
import pytest

from data_catalog.format.accounts import Account
from data_catalog.place import Place
from pipeline.dedup.buckets import bucket_count, read_records, record_reader, write_records
from pipeline.parts import make_part

RECORD = np.dtype([("key", "<u8"), ("bytes", "V3")])


@pytest.fixture(params=["disk", "store"])
def folder(request, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path if request.param == "disk" else Place(f"memory://{uuid.uuid4().hex}/work")


def bucketed(folder, name, keys, buckets):
    records = np.empty(len(keys), RECORD)
    records["key"] = np.sort(np.array(keys, np.uint64))
    records["bytes"] = [bytes([i, 0, 1]) for i in range(len(keys))]

    def make(out):
        write_records(out, records["key"], buckets, [records[:2], records[2:]])
        return Account()

    return make_part(folder / name, f"{keys} {buckets}", make)


@pytest.mark.parametrize(
    ("records", "most", "buckets"), [(0, 8, 1), (8, 8, 1), (9, 8, 2), (17, 8, 4), (65, 8, 16)]
)
def test_the_number_of_buckets_is_a_power_of_two(records, most, buckets):
    assert bucket_count(records, most) == buckets


@pytest.mark.parametrize("buckets", [1, 2, 8])
def test_a_bucket_has_the_keys_of_its_first_bits_of_all_parts(folder, buckets, monkeypatch):
    monkeypatch.setattr("pipeline.dedup.buckets.CHUNK_ROWS", 2)
    keys = [0, 1, 2**61 - 1, 2**61, 2**63 - 1, 2**63, 2**64 - 1]
    parts = [
        bucketed(folder, *part, buckets) for part in (("a", keys), ("b", []), ("c", [5, 2**63]))
    ]
    found = []
    for bucket in range(buckets):
        chunks = list(read_records(parts, bucket, RECORD))
        assert all(0 < len(chunk) <= 2 for chunk in chunks)
        of_bucket = [key for chunk in chunks for key in chunk["key"].tolist()]
        assert {key * buckets >> 64 for key in of_bucket} <= {bucket}
        found += of_bucket
    assert sorted(found) == sorted([*keys, 5, 2**63])


def test_only_the_range_of_a_bucket_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("data_catalog.format.stored_file._BLOCK_BYTES", 1)
    part = bucketed(Place(f"memory://{uuid.uuid4().hex}/work"), "a", range(0, 2**64, 2**60), 4)
    asked = []
    monkeypatch.setattr(
        Place,
        "read_range",
        lambda place, start, length: asked.append((start, length)) or place.read()[start:][:length],
    )
    [chunk] = read_records([part], 1, RECORD)
    assert chunk["key"].tolist() == [i * 2**60 for i in (4, 5, 6, 7)]
    assert asked == [(4 * 11, 4 * 11)]
    assert not list(tmp_path.rglob("records.bin"))


def test_records_become_batches_with_bytes_of_a_fixed_length():
    records = np.zeros(2, RECORD)
    records["key"], records["bytes"] = [3, 2**64 - 1], [b"abc", b"\0\1\2"]
    table = record_reader(iter([records, records[:0]]), RECORD).read_all()
    assert table.to_pydict() == {"key": [3, 2**64 - 1], "bytes": [b"abc", b"\0\1\2"]}
