"""Odd files and folders in a corpus: each document is read, or counted by a reason."""

import gzip
import json
import os
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from pipeline.config import Build
from pipeline.source.documents import Fault
from pipeline.source.registry import corpus_source
from tests.helpers.faults import Wrong
from tests.helpers.planted import check_corpus

pytestmark = pytest.mark.faults(
    "Odd files",
    tried="Linked and hidden folders, links in circles, pipes, sockets, folders that cannot be "
    "opened, files of targets, tables of Delta Lake and trees of RedPajama-V2, as JSON lines, "
    "Parquet and text; and cases of public reports.",
    expected="Plan and build read the same documents. Everything else is counted by a reason, with "
    "the name of a file.",
)

CASES = Path(__file__).parents[3] / "shared" / "cases"


def rows(*texts, **more):
    return b"".join(
        json.dumps({"id": f"id-{text}", "text": text, **more}).encode() + b"\n" for text in texts
    )


def lay(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


WRITERS = {
    "jsonl": (".jsonl", lambda path, text: path.write_bytes(rows(text))),
    "text": (".txt", lambda path, text: path.write_text(text)),
    "parquet": (
        ".parquet",
        lambda path, text: pq.write_table(pa.table({"id": [f"id-{text}"], "text": [text]}), path),
    ),
}


def tree(root, kind, names):
    """Write a document per name, whose text is the last part of the name."""
    ending, write = WRITERS[kind]
    for name in names:
        path = root / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, path.name.removesuffix(ending))
    return ending


@pytest.mark.parametrize("kind", WRITERS)
def test_linked_folders_and_files(tmp_path, kind):
    root = tmp_path / "in"
    ending = tree(root, kind, ["a", "b/c"])
    tree(tmp_path, kind, ["elsewhere/d", "elsewhere/deep/e"])
    (root / "part2").symlink_to(tmp_path / "elsewhere")
    (root / "part3").symlink_to(tmp_path / "elsewhere" / "deep")
    (root / "aa").symlink_to("b")
    (root / "b" / "loop").symlink_to("..")
    (root / f"z{ending}").symlink_to(f"a{ending}")
    (root / "unmounted").symlink_to("/nowhere/at/all")
    if kind == "text":
        texts, noted = "ac", {"second_link": 3, "outside_folder": 2, "dangling_link": 1}
    else:
        texts, noted = "acde", {"second_link": 4, "dangling_link": 1}
    check_corpus(tmp_path / "work", {"kind": kind, "path": root}, texts, noted=noted)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_no_file(tmp_path, kind):
    root = tmp_path / "in"
    ending = tree(root, kind, ["a"])
    os.mkfifo(root / f"pipe{ending}")
    (root / f"null{ending}").symlink_to("/dev/null")
    (root / f"self{ending}").symlink_to(f"self{ending}")
    (root / f"folder{ending}").mkdir()
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root)  # the path of a socket is short
    try:
        server.bind(f"s{ending}")
    finally:
        os.chdir(here)
        server.close()
    failed = {"bad_parquet" if kind == "parquet" else "unreadable_file": 1}
    check_corpus(tmp_path / "work", {"kind": kind, "path": root}, "a", failed, {"not_a_file": 3})


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_cannot_be_opened(tmp_path, kind):
    root = tmp_path / "in"
    tree(root, kind, ["a"])
    here = Path.cwd()
    os.chdir(root)
    try:
        for _ in range(20):  # longer than any path may be
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
    finally:
        os.chdir(here)
    section = {"kind": kind, "path": root}
    check_corpus(tmp_path / "work", section, "a", noted={"unreadable_folder": 1})


@pytest.mark.parametrize("kind", WRITERS)
def test_files_of_targets(tmp_path, kind):
    root = tmp_path / "in"
    tree(root, kind, ["a", "target/b", "target/.hidden/c"])
    section = {"kind": kind, "path": root}
    noted = {"held_out": 1, "hidden": 1}
    check_corpus(tmp_path / "work", section, "a", noted=noted, reserved=(root / "target",))


def test_parquet_files_with_other_columns_count_their_rows(tmp_path):
    tree(tmp_path / "in", "parquet", ["a"])
    pq.write_table(pa.table({"body": ["x"] * 5}), tmp_path / "in" / "b.parquet")
    pq.write_table(pa.table({"text": [["x"]] * 4}), tmp_path / "in" / "c.parquet")
    section = {"kind": "parquet", "path": tmp_path / "in"}
    check_corpus(tmp_path / "work", section, "a", {"no_text": 9})


def test_a_delta_table(tmp_path):
    tree(tmp_path / "in", "parquet", ["a", "_delta_log/b", "year=2020/c"])
    section = {"kind": "parquet", "path": tmp_path / "in"}
    check_corpus(tmp_path / "work", section, "ac", noted={"hidden": 1})


def test_a_folder_that_cannot_name_a_target_is_refused(tmp_path):
    for name in (".ipynb_checkpoints", "__MACOSX", "law", "Código civil"):
        lay(tmp_path / "targets" / name, {"t.jsonl": rows("t")})
    config = Build.model_validate(
        {
            "out": "x",
            "source": {"kind": "jsonl", "path": tmp_path},
            "targets_below": tmp_path / "targets",
        }
    )
    with pytest.raises(UserError, match="Código civil"):
        config.all_targets()
    (tmp_path / "targets" / "Código civil").rename(tmp_path / "targets" / "civil")
    if [target.name for target in config.all_targets()] != ["civil", "law"]:
        raise Wrong("targets")


def rpv2(root, name, *texts):
    lines = b"".join(json.dumps({"raw_content": text}).encode() + b"\n" for text in texts)
    lay(root, {f"documents/2023-06/{name}.json.gz": gzip.compress(lines)})


def test_a_tree_of_redpajama(tmp_path):
    root = tmp_path / "in"
    rpv2(root, "0000/en_head", "a", "b")
    rpv2(root, "0000/de_head", "c")
    rpv2(root, "_old/en_head", "x")
    lay(
        root,
        {
            "README.md": b"x",
            "documents/2023-06/0000/en_middle.json.gz.ab12.part": b"x",
            "documents/2023-06/0000/notes.txt": b"x",
            "quality_signals/2023-06/0009/en_head.signals.json.gz": b"x",
            "listings/en-2023-06-head_middle.txt": b"# files\n2023-06/0000/en_head\n"
            b"2023-06/0004/en_head\nhttps://example.org/x\n",
        },
    )
    noted = {
        "hidden": 1,
        "other_name": 2,
        "incomplete": 1,
        "no_documents": 1,
        "not_chosen": 1,
        "missing_file": 1,
        "signals_missing": 2,
    }
    section = {"kind": "rpv2", "path": root, "languages": ["en"]}
    check_corpus(tmp_path / "work", section, "ab", noted=noted)


PUBLIC = {  # case -> kind, documents, failed, notes
    "dolma-json-gz": ("jsonl", 6, {}, {}),
    "jsonl-bom-concatenated": ("jsonl", 12, {}, {}),
    "jsonl-int-ids": ("jsonl", 6, {}, {"other_ending": 1, "bad_url": 6}),
    "jsonl-misnamed-gz": ("jsonl", 8, {}, {}),
    "jsonl-other-endings": ("jsonl", 7, {"bad_zstd": 1}, {}),
    "jsonl-utf16": ("jsonl", 0, {"bad_utf8": 1}, {}),
    "parquet-delta": ("parquet", 6, {}, {"hidden": 2}),
    "parquet-kinds/binary.parquet": ("parquet", 6, {}, {}),
    "parquet-kinds/intid.parquet": ("parquet", 6, {}, {}),
    "parquet-kinds/view.parquet": ("parquet", 6, {}, {}),
}


@pytest.mark.parametrize("case", PUBLIC)
def test_a_case_of_a_public_report(tmp_path, case):
    if not CASES.is_dir():
        pytest.skip("the folder of cases is not on this machine")
    kind, documents, failed, noted = PUBLIC[case]
    section = {"kind": kind, "path": CASES / case}
    config = Build.model_validate({"out": "x", "source": section})
    source = corpus_source(config)
    texts = [
        record.text
        for shard in source.plan().shards
        for record in source.read(shard)
        if not isinstance(record, Fault)
    ]
    if len(texts) != documents:
        raise Wrong(f"{len(texts)} documents, expected {documents}")
    check_corpus(tmp_path / "work", section, texts, failed, noted)
