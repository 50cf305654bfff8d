"""Failures of disks, as Python and the libraries raise them."""

import errno
import os
import pickle
import resource

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from data_catalog.disk import describe_disk_failure, disk_failure, writing
from data_catalog.errors import AccountingError, UserError
from data_catalog.temporary import replacing

RESOURCES = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EMFILE", "ENFILE")
PATHS = ("EACCES", "EPERM", "ENAMETOOLONG", "ENOTDIR", "EISDIR", "EEXIST", "ELOOP")


def system_error(name, *paths):
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), *paths)


@pytest.mark.parametrize("name", [*RESOURCES, *PATHS, "ESTALE", "ENODEV", "EBUSY", "EINVAL"])
def test_every_failure_of_a_path_is_a_sentence_that_names_it(name):
    sentence = describe_disk_failure(system_error(name, "/data/out/part.json"))
    assert sentence.startswith("/data/out/part.json: ")
    assert sentence.endswith(".")
    assert "Errno" not in sentence


@pytest.mark.parametrize("name", RESOURCES)
def test_a_failure_without_a_path_gets_that_of_the_block(name, tmp_path):
    with pytest.raises(OSError, match=r"out\.json") as raised, writing(tmp_path / "out.json"):
        raise system_error(name)
    assert raised.value.errno == getattr(errno, name)
    restored = pickle.loads(pickle.dumps(raised.value))  # as from a worker process
    assert describe_disk_failure(restored) == describe_disk_failure(raised.value)


def test_the_path_of_the_failed_file_is_kept(tmp_path):
    with pytest.raises(PermissionError) as raised, writing(tmp_path):
        raise system_error("EACCES", "/elsewhere/file")
    assert describe_disk_failure(raised.value).startswith("/elsewhere/file: permission denied")


def test_of_a_copy_the_target_is_named():
    error = system_error("ENOSPC", "/from/a", None, "/to/.b.12.tmp/a")
    assert describe_disk_failure(error).startswith("/to/b/a: no space left")


@pytest.mark.parametrize("words", ["raised from", "raised while handling", "in a group"])
def test_a_hidden_failure_is_found(words):
    cause = system_error("ENOSPC", "/data/file")
    error = RuntimeError("unexpected position")
    if words == "raised from":
        error.__cause__ = cause
    elif words == "raised while handling":
        error.__context__ = cause
    else:
        error = ExceptionGroup("several", [ValueError("a"), cause])
    assert describe_disk_failure(error).startswith("/data/file: no space left")


def test_bugs_are_not_taken_for_failures_of_the_disk():
    while_handling = KeyError("name")
    while_handling.__context__ = system_error("EACCES", "/data/file")
    others = [
        while_handling,
        ValueError("wrong"),
        system_error("ENOENT", "/data/file"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        OSError("Can't load the model"),
        RuntimeError("Permission denied"),
    ]
    assert [disk_failure(error) for error in others] == [None] * len(others)


@pytest.mark.parametrize("error", [UserError("invalid"), AccountingError("lost"), KeyError("a")])
def test_other_errors_pass_unchanged(error, tmp_path):
    with pytest.raises(type(error)) as raised, writing(tmp_path):
        raise error
    assert raised.value is error


def write_parquet(path):
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(20_000)}), path)


def write_parquet_pieces(path):
    piece = pa.table({"a": np.random.default_rng(0).random(2_000)})
    with pq.ParquetWriter(path, piece.schema) as writer:
        for _ in range(20):
            writer.write_table(piece)


def write_arrow(path):
    table = pa.table({"a": np.zeros(20_000)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_torch(path):
    with path.open("wb") as file:
        torch.save({"a": torch.zeros(20_000)}, file)


def write_arrays(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(20_000))


def write_database(path):
    path.mkdir()
    with duckdb.connect(str(path / "scratch.duckdb")) as connection:
        connection.sql("CREATE TABLE a AS SELECT random() FROM range(50_000)")


WRITERS = {
    "text": lambda path: path.write_text("a" * 100_000),
    "parquet": write_parquet,
    "parquet in pieces": write_parquet_pieces,
    "arrow": write_arrow,
    "torch": write_torch,
    "safetensors": lambda path: save_file({"a": torch.zeros(20_000)}, path),
    "numpy": write_arrays,
    "duckdb": write_database,
}


@pytest.fixture
def files_of_50_kilobytes():
    """Limit the size of files, which needs no mount, unlike a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_what_every_library_raises_is_recognized_and_leaves_nothing(
    name, tmp_path, files_of_50_kilobytes
):
    result = tmp_path / "result"
    with pytest.raises(OSError, match="File too large") as raised, replacing(result) as temporary:
        WRITERS[name](temporary)
    sentence = describe_disk_failure(raised.value)
    assert sentence.startswith(f"{tmp_path}/result")
    assert ": the file would exceed the limit" in sentence
    assert list(tmp_path.iterdir()) == []
