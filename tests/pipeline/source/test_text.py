import gzip
import os

import numpy as np
import pytest
from upath import UPath

from data_catalog.errors import UserError
from pipeline.config import Build
from pipeline.source import text
from pipeline.source.config import Text
from pipeline.source.cut_text import cut_text
from pipeline.source.documents import Document, Fault
from pipeline.source.registry import corpus_source
from pipeline.source.stage import read_shard
from pipeline.source.targets import check_targets, read_target
from pipeline.source.text import TextSource

PARAGRAPH = "One sentence. Another one,\nwhich goes on.\n\n"  # 43 characters


@pytest.fixture(params=["local", "remote"])
def root(request, tmp_path):
    yield tmp_path / "texts" if request.param == "local" else UPath(f"memory://{tmp_path.name}")
    if request.param == "remote":
        UPath(f"memory://{tmp_path.name}").fs.store.clear()


def write(path, data="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def read(root, **settings):
    source = TextSource(Text(kind="text", path=str(root), **settings))
    return [record for shard in source.plan().shards for record in source.read(shard)]


def cut(blocks, maximum):
    return list(cut_text(blocks, "a.txt", maximum))


def test_a_file_is_a_document_named_by_its_path_from_the_folder_it_is_in(root):
    write(root / "b.md", "\ufeffIn no folder\r\nat all\n")
    write(root / "a" / "deep" / "c.txt", "\n  indented\n\n")
    write(root / "a" / "D.TXT.gz", gzip.compress("packed é\n".encode()))
    write(root / "a" / "other.csv", "no text")
    write(root / ".git" / "hidden.txt", "hidden")
    assert read(root) == [
        Document("a/D.TXT.gz", "packed é", source="a"),
        Document("a/deep/c.txt", "  indented", source="a"),
        Document("b.md", "In no folder\nat all", source="b"),
    ]


def test_a_single_file_and_other_endings(tmp_path):
    write(tmp_path / "a" / "notes.log", "a log")
    assert read(tmp_path / "a" / "notes.log", suffixes=[".log"]) == [
        Document("notes.log", "a log", source="notes")
    ]
    (tmp_path / "link.log").symlink_to(tmp_path / "a" / "notes.log")  # named, so it is meant
    assert [record.text for record in read(tmp_path / "link.log", suffixes=[".log"])] == ["a log"]


@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_a_long_file_is_cut_at_the_ends_of_paragraphs_wherever_blocks_end(monkeypatch, root, block):
    monkeypatch.setattr(text, "_BLOCK_BYTES", block)
    write(root / "book.txt", PARAGRAPH * 100)
    found = read(root, piece_characters=500)
    assert [record.doc_id for record in found] == [
        "book.txt",
        *(f"book.txt#{i}" for i in range(2, len(found) + 1)),
    ]
    assert "\n\n".join(record.text for record in found) + "\n\n" == PARAGRAPH * 100
    assert {len(record.text) for record in found[:-2]} == {11 * 43 - 2}
    assert min(len(record.text) for record in found) > 100  # no crumb at the end


def test_without_paragraphs_it_is_cut_after_a_sentence_then_a_line_then_a_word():
    assert (
        cut(["aaa. bbb\nccc ddd eee fff ggg"], 10)[0] == "aaa. bbb"
    )  # the sentence ends before the middle of the first piece
    assert cut(["aaa bbb. c\nccc ddd eee fff ggg"], 10)[0] == "aaa bbb."
    assert cut(["aaa bb\nc ccc ddd eee fff ggg"], 10)[0] == "aaa bb"
    assert cut(["aaa bb c ccc ddd eee fff ggg"], 10)[0] == "aaa bb c"
    assert cut(["一二三四五。六七八九十" * 4], 10)[0] == "一二三四五。"


def test_the_last_pieces_share_the_rest_of_the_text():
    assert [len(piece) for piece in cut(["a " * 60], 100)] == [73, 45]


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_a_stretch_without_white_space_is_left_out_as_a_fault(size):
    whole = "before " + "x" * 95 + " after"
    found = cut([whole[i : i + size] for i in range(0, len(whole), size)], 20)
    assert [found[0], found[2]] == ["before", "after"]
    assert (found[1].reason, found[1].row, found[1].characters) == ("no_white_space", 1, 95)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty_file", "no bytes"),
        (b" \n\n\t", "empty_text", "white space"),
        ("schön".encode("latin-1"), "bad_utf8", "byte 3: "),
        (b"\xef\xbb\xbfab\xff", "bad_utf8", "byte 5: invalid start byte. Save the file as UTF-8"),
        (b"abc\xe2\x82", "bad_utf8", "byte 3: unexpected end"),
        ("a text".encode("utf-16"), "bad_utf8", "the file is UTF-16. Save it as UTF-8"),
        (b"\x7fELF\0\0", "not_text", "byte 4 is NUL"),
        ("ab".encode("utf-16-le"), "bad_utf8", "the file is UTF-16"),
        ("ab".encode("utf-32-be"), "bad_utf8", "the file is UTF-32"),
    ],
)
def test_a_file_that_is_not_utf_8_is_a_fault_with_the_position(root, data, reason, detail):
    write(root / "a.txt", data)
    write(root / "b.txt", "sound")
    [fault, sound] = read(root)
    assert (fault.file, fault.row, fault.reason, sound.text) == ("a.txt", None, reason, "sound")
    assert detail in fault.detail


@pytest.mark.parametrize("block", [1, 10_000])
def test_whole_pieces_before_a_fault_are_kept(monkeypatch, tmp_path, block):
    monkeypatch.setattr(text, "_BLOCK_BYTES", block)
    good = PARAGRAPH * 100
    write(tmp_path / "a.txt", good.encode() + b"\xff" + good.encode())
    found = read(tmp_path, piece_characters=500)
    assert good.startswith("\n\n".join(record.text for record in found[:-1]))
    assert len(found) > 5
    assert found[-1].detail.startswith("byte 4300: ")


def test_a_damaged_gzip_file_is_a_fault(root):
    packed = gzip.compress(os.urandom(3000).hex().encode())
    write(root / "cut.txt.gz", packed[:2000])
    write(root / "wrong.txt.gz", b"\xff\xff of random bytes")
    assert [record.reason for record in read(root)] == ["truncated_gzip", "bad_gzip"]


def test_dangling_and_circular_links_and_those_out_of_the_folder_are_faults(tmp_path):
    write(tmp_path / "secret.txt", "secret")
    root = tmp_path / "root"
    write(root / "a.txt", "a")
    (root / "inside.txt").symlink_to("a.txt")
    (root / "circle.txt").symlink_to("circle.txt")
    (root / "nowhere.txt").symlink_to("gone")
    (root / "secret.txt").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.txt")
    found = {
        record.doc_id if isinstance(record, Document) else record.file: record
        for record in read(root)
    }
    assert {name: record.reason for name, record in found.items() if isinstance(record, Fault)} == {
        "circle.txt": "unreadable_file",
        "nowhere.txt": "unreadable_file",
        "secret.txt": "outside_folder",
    }
    assert set(found) - {"circle.txt", "nowhere.txt", "secret.txt"} == {"a.txt"}
    notes = TextSource(Text(kind="text", path=root)).plan().unread
    assert {note.reason: note.file for note in notes} == {
        "second_link": "inside.txt",
        "not_a_file": "pipe.txt",
        "outside_folder": "up",
    }


def test_files_and_folders_without_permission(tmp_path):
    write(tmp_path / "a.txt", "a")
    write(tmp_path / "shut.txt", "b")
    write(tmp_path / "closed" / "c.txt", "c")
    (tmp_path / "shut.txt").chmod(0)
    (tmp_path / "closed").chmod(0)
    if os.access(tmp_path / "shut.txt", os.R_OK):
        pytest.skip("this user may read everything")
    found = read(tmp_path)
    assert (found[0].text, found[1].reason) == ("a", "unreadable_file")
    notes = TextSource(Text(kind="text", path=tmp_path)).plan().unread
    assert [(note.reason, note.file) for note in notes] == [("unreadable_folder", "closed")]


def test_memory_stays_bounded_by_pieces_and_blocks(tmp_path):
    import tracemalloc

    with gzip.open(tmp_path / "bomb.txt.gz", "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(b"x" * 2**20)
    tracemalloc.start()
    [fault] = read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
    assert fault.characters == 40 * 2**20


def test_small_files_share_shards_and_a_new_file_changes_only_its_own_shard(tmp_path):
    for i in range(1_500):
        write(tmp_path / f"{i:05}.txt", f"text {i}")
    source = TextSource(Text(kind="text", path=tmp_path))
    before = {shard.name: shard.identity() for shard in source.plan().shards}
    assert 2 < len(before) < 20
    assert [file["path"] for shard in before.values() for file in shard["inputs"]] == [
        f"{i:05}.txt" for i in range(1_500)
    ]
    write(tmp_path / "00700b.txt", "new")
    after = {shard.name: shard.identity() for shard in source.plan().shards}
    assert sum(before.get(name) != identity for name, identity in after.items()) == 1


def test_large_files_end_a_shard(monkeypatch, tmp_path):
    monkeypatch.setattr(text, "SHARD_BYTES", 100)
    for i in range(5):
        write(tmp_path / f"{i}.txt", "x" * 60)
    assert (
        max(
            len(shard.inputs)
            for shard in TextSource(Text(kind="text", path=tmp_path)).plan().shards
        )
        == 2
    )


def test_a_folder_without_text_is_refused(tmp_path):
    write(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"source\.path .*\*\.txt "):
        TextSource(Text(kind="text", path=tmp_path)).plan()
    write(tmp_path / ".hidden" / "a.txt")
    with pytest.raises(UserError, match=r"source\.path .*1 not read, \.hidden/a\.txt"):
        TextSource(Text(kind="text", path=tmp_path)).plan()
    with pytest.raises(UserError, match=r"source\.path .*gone"):
        TextSource(Text(kind="text", path=tmp_path / "gone")).plan()


def build(root, *targets, **source):
    return Build.model_validate(
        {"out": "out", "source": {"kind": "text", "path": str(root), **source}, "targets": targets}
    )


def test_a_target_inside_the_corpus_is_left_out_of_it(root):
    for name in ("a/1", "a/2", "mine/1", "mine/2"):
        write(root / f"{name}.txt", name)
    config = build(root, {"name": "mine", "path": str(root / "mine")})
    check_targets(config)
    [shard] = corpus_source(config).plan().shards
    assert [file.path for file in shard.inputs] == ["a/1.txt", "a/2.txt"]
    with pytest.raises(UserError, match=r"source\.path .* 4 files .*targets"):
        corpus_source(build(root, {"name": "mine", "path": str(root)})).plan()


def splits(path, **source):
    config = build("x", {"name": "t", "path": str(path)}, **source)
    table, _ = read_target(config.targets[0], config.source)
    return {row["doc_id"]: row["split"] for row in table.to_pylist()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (5, (3, 1, 1)), (100, (60, 20, 20))],
)
def test_targets_of_text_are_split_by_file(tmp_path, files, expected):
    for i in range(files):
        write(tmp_path / f"{i}.txt", f"text {i}")
    found = list(splits(tmp_path).values())
    assert tuple(found.count(name) for name in ("align", "validation", "test")) == expected


def test_pieces_of_a_file_share_a_split_unless_there_are_fewer_than_three_files(tmp_path):
    for name in "abcde":
        write(tmp_path / "many" / f"{name}.txt", PARAGRAPH * 100)
    found = splits(tmp_path / "many", piece_characters=500)
    assert len(found) > 40
    assert len({(doc_id.partition("#")[0], split) for doc_id, split in found.items()}) == 5
    lone = list(splits(tmp_path / "many" / "a.txt", piece_characters=500).values())
    assert {name: lone.count(name) for name in set(lone)} == {
        "align": 6,
        "validation": 2,
        "test": 2,
    }


def test_files_and_folders_named_test_are_the_test_split(tmp_path):
    for name in ("test/a", "test/b", "sub/test", "testimony", *map(str, range(9))):
        write(tmp_path / f"{name}.txt", name)
    found = splits(tmp_path)
    assert {doc_id for doc_id, split in found.items() if split == "test"} == {
        "test/a.txt",
        "test/b.txt",
        "sub/test.txt",
    }
    assert list(found.values()).count("validation") == 2


def test_text_beside_json_lines_is_not_the_target(tmp_path):
    write(tmp_path / "README.md", "about")
    write(tmp_path / "a.jsonl", '{"id": "one", "text": "x"}\n')
    assert set(splits(tmp_path)) == {"one"}


def test_a_shard_has_an_account_and_other_pieces_are_another_part(tmp_path):
    write(tmp_path / "in" / "a.txt", PARAGRAPH * 30)
    write(tmp_path / "in" / "b.txt", b"\xff")
    prints = set()
    for maximum in (500, 1000):
        source = corpus_source(build(tmp_path / "in", piece_characters=maximum))
        [shard] = source.plan().shards
        part = read_shard(shard, tmp_path / "out", source)
        prints.add(part.fingerprint)
    assert (
        part.account.read.rows,
        part.account.kept.rows,
        part.account.failed["bad_utf8"].rows,
    ) == (3, 2, 1)
    assert len(prints) == 2


@pytest.mark.parametrize("ending", ["txt", "txt.gz"])
def test_a_head_estimates_the_number_of_pieces_of_a_shard(monkeypatch, root, ending):
    monkeypatch.setattr(text, "HEAD_BYTES", 3_000)
    words = np.random.Generator(np.random.Philox(key=1)).integers(0, 10**6, 4_000)
    for i in range(4):
        whole = " ".join(map(str, words[1_000 * i : 1_000 * (i + 1)])).encode()
        write(root / f"{i}.{ending}", gzip.compress(whole) if ending.endswith("gz") else whole)
    source = corpus_source(build(root, piece_characters=500))
    [shard] = source.plan().shards
    pieces = sum(isinstance(record, Document) for record in source.read(shard))
    found = source.read_head(shard)
    assert 0 < found.share < 1
    assert found.records == pytest.approx(pieces, rel=0.25)
    monkeypatch.setattr(text, "HEAD_BYTES", 10**6)
    found = source.read_head(shard)
    assert (found.records, found.share, len(found.texts)) == (pieces, 1.0, pieces)


def test_a_gzip_bomb_ends_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "TEXT_BYTES", 2**19)
    write(tmp_path / "a.txt.gz", gzip.compress(b"word " * 2**18))  # 1.25 MiB, 1 : 900
    write(tmp_path / "b.txt.gz", gzip.compress(os.urandom(2**18).hex().encode()))
    documents, faults = [], []
    for record in read(tmp_path, piece_characters=2**20):
        (faults if isinstance(record, Fault) else documents).append(record)
    assert [(fault.file, fault.reason) for fault in faults] == [
        ("a.txt.gz", "too_long"),
    ]
    assert [document.doc_id for document in documents] == ["b.txt.gz"]
