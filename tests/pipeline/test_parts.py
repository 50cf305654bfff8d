import hashlib
import json
import tempfile
import uuid

import pytest

from data_catalog.errors import AccountingError, UserError
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import FileIdentity
from data_catalog.place import Place
from pipeline.parts import Part, StandingFile, make_part, part_files, read_part, sole_builder
from tests.helpers.leftovers import temporary_of_killed

ONE = Account(read=Tally(rows=1), kept=Tally(rows=1))


def writer(text, account=ONE):
    def make(folder):
        (folder / "result").write_text(text)
        return account

    return make


def test_a_part_is_made_once_per_fingerprint(tmp_path):
    folder = tmp_path / "stage" / "a"
    first = make_part(folder, "f1", writer("one"))
    again = make_part(folder, "f1", writer("two"))
    assert (again, (folder / "result").read_text(), first.name) == (first, "one", "a")
    make_part(folder, "f2", writer("three"))
    assert (folder / "result").read_text() == "three"


def test_files_without_a_sidecar_are_not_done(tmp_path):
    make_part(tmp_path / "a", "f1", writer("one"))
    (tmp_path / "a" / "part.json").unlink()
    assert read_part(tmp_path / "a") is None
    make_part(tmp_path / "a", "f1", writer("two"))
    assert (tmp_path / "a" / "result").read_text() == "two"


def test_a_sidecar_records_the_checksum_of_every_file(tmp_path):
    def make(folder):
        (folder / "inner").mkdir()
        (folder / "result").write_bytes(b"abc")
        (folder / "inner" / "part.json").write_bytes(b"")
        return ONE

    part = make_part(tmp_path / "a", "f1", make)
    files = part_files(part.folder)
    assert {name: (file.bytes, file.sha256[:8]) for name, file in files.items()} == {
        "inner/part.json": (0, "e3b0c442"),
        "result": (3, "ba7816bf"),
    }
    (part.folder / "result").write_bytes(b"changed")
    assert part_files(part.folder) == files  # nothing is read again


@pytest.mark.parametrize("in_store", [False, True])
def test_a_standing_part_has_the_named_files_and_no_others(tmp_path, monkeypatch, in_store):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = Place(f"memory://{uuid.uuid4().hex}") if in_store else tmp_path / "catalog"
    for name in ("part-0.parquet", "part-1.parquet"):
        Place(f"{root}/{name}").write(name.encode())
    identity = FileIdentity(bytes=14, sha256=hashlib.sha256(b"part-1.parquet").hexdigest())
    files = {"documents-1": StandingFile(root / "part-1.parquet", identity)}
    part = Part(root, "f1", ONE, 0, files)
    assert part.names_like("*") == ["documents-1"]
    assert (part.has("documents-1"), part.has("part-0.parquet")) == (True, False)
    assert [path.read_bytes() for path in part.matching("documents-*")] == [b"part-1.parquet"]
    assert part.files() == {"documents-1": identity}


def test_a_sidecar_of_an_earlier_version_has_no_checksums(tmp_path):
    write_sidecar(tmp_path / "a", ("seconds",), lambda node, key: None)
    (tmp_path / "a" / "result").write_bytes(b"abc")
    assert make_part(tmp_path / "a", "f1", writer("two")).seconds == 1.5
    assert part_files(tmp_path / "a")["result"].sha256.startswith("ba7816bf")


def key_paths(tree, prefix=()):
    """The path of every key in nested objects."""
    for key, value in tree.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from key_paths(value, (*prefix, key))


SIDECAR = {
    "fingerprint": "f1",
    "account": {
        "read": {"rows": 1, "characters": 0, "tokens": 0},
        "kept": {"rows": 1, "characters": 0, "tokens": 0},
        "dropped": {},
        "failed": {},
    },
    "seconds": 1.5,
}


def write_sidecar(folder, path, change):
    """Write the sidecar above with `change` applied to the object that holds the last key."""
    sidecar = json.loads(json.dumps(SIDECAR))
    node = sidecar
    for key in path[:-1]:
        node = node[key]
    change(node, path[-1])
    folder.mkdir()
    (folder / "part.json").write_text(json.dumps(sidecar))


def test_a_sidecar_is_read(tmp_path):
    write_sidecar(tmp_path / "a", ("seconds",), lambda node, key: None)
    part = read_part(tmp_path / "a")
    assert (part.fingerprint, part.account, part.seconds) == ("f1", ONE, 1.5)


@pytest.mark.parametrize("path", list(key_paths(SIDECAR)), ids=".".join)
def test_every_key_of_a_sidecar_is_needed(tmp_path, path):
    write_sidecar(tmp_path / "a", path, dict.pop)
    with pytest.raises(UserError, match=rf"part\.json: .*{path[-1]}"):
        read_part(tmp_path / "a")


@pytest.mark.parametrize("value", [None, "text", -1, [1]])
@pytest.mark.parametrize("path", list(key_paths(SIDECAR)), ids=".".join)
def test_every_key_of_a_sidecar_has_its_type_and_range(tmp_path, path, value):
    if path == ("fingerprint",) and value == "text":
        value = ""
    write_sidecar(tmp_path / "a", path, lambda node, key: node.__setitem__(key, value))
    with pytest.raises(UserError, match=rf"part\.json: {'.'.join(path)}"):
        make_part(tmp_path / "a", "f1", writer("one"))


def test_a_failing_part_leaves_the_last_good_one(tmp_path):
    make_part(tmp_path / "a", "f1", writer("one"))
    with pytest.raises(AccountingError, match="read"):
        make_part(
            tmp_path / "a", "f2", writer("two", Account(read=Tally(rows=2), kept=Tally(rows=1)))
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "result").read_text() == "one"


@pytest.mark.parametrize(
    "folder", ["work/embed", "work/add-0123456789ab/embed", "work/tree/.all.0123.unfinished"]
)
def test_one_build_at_a_time_removes_leftovers_of_a_killed_one(tmp_path, folder):
    begun = temporary_of_killed(tmp_path / folder / "a")
    published = temporary_of_killed(tmp_path / "versions" / "0002" / "domains.parquet")
    other = temporary_of_killed(tmp_path / "notes" / "a")
    for path in (begun, published, other):
        path.mkdir(parents=True)
    make_part(tmp_path / "work" / "embed" / "b", "f1", writer("one"))
    with sole_builder(tmp_path / "work"):
        assert not begun.exists()
        assert not published.exists()
        assert other.exists()
        assert read_part(tmp_path / "work" / "embed" / "b") is not None
        with (
            pytest.raises(UserError, match="out`"),
            sole_builder(tmp_path / "work"),
        ):
            pass
    with sole_builder(tmp_path / "work"):
        pass
