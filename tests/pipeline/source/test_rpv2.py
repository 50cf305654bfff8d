import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from data_catalog.errors import UserError
from pipeline.source.config import Rpv2
from pipeline.source.documents import Document, Fault, document_number
from pipeline.source.rpv2 import Rpv2Source


def record(text, **more):
    return {
        "url": "https://a.example/x",
        "raw_content": text,
        "source_domain": "a.example",
        "language": "en",
        **more,
    }


def write(root, component, key, suffix, lines):
    path = root / component / f"{key}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode("utf-8", "surrogatepass")))
    return path


def documents(root, key, lines):
    return write(root, "documents", key, ".json.gz", lines)


def signals(root, key, scores):
    lines = [{"id": f"{key}.json.gz/{row}", "quality_signals": found} for row, found in scores]
    return write(root, "quality_signals", key, ".signals.json.gz", lines)


def duplicates(root, key, rows):
    path = root / "duplicates" / f"{key}.duplicates.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"doc_id": [f"{key}.json.gz/{row}" for row in rows]}), path)
    return path


def open_source(root, **filters):
    return Rpv2Source(Rpv2(kind="rpv2", path=root, **filters))


def shards(root, **filters):
    return open_source(root, **filters).plan().shards


def everything(root):
    """All documents and all faults of a tree."""
    source = open_source(root)
    found = [item for shard in source.plan().shards for item in source.read(shard)]
    return [item for item in found if isinstance(item, Document)], [
        item for item in found if isinstance(item, Fault)
    ]


KEY = "2023-06/0000/en_head"


def test_plan_orders_and_filters_and_gives_each_shard_its_files(tmp_path):
    for key in ("2023-06/0001/de_tail", "2023-06/0001/en_head", KEY, "2014-15/0003/fr_middle"):
        documents(tmp_path, key, [])
    signals(tmp_path, KEY, [])
    (tmp_path / "documents" / "notes.txt").write_text("not a document")
    assert [shard.name for shard in shards(tmp_path)] == [
        "2014-15_0003_fr_middle",
        "2023-06_0000_en_head",
        "2023-06_0001_de_tail",
        "2023-06_0001_en_head",
    ]
    assert [
        shard.key
        for shard in shards(tmp_path, snapshots=("2023-06",), languages=("en",), max_shards=1)
    ] == [KEY]
    assert [shard.key for shard in shards(tmp_path, buckets=("tail",))] == ["2023-06/0001/de_tail"]
    assert [entry.path for entry in shards(tmp_path)[1].inputs] == [
        f"documents/{KEY}.json.gz",
        f"quality_signals/{KEY}.signals.json.gz",
    ]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"snapshots": ("2023-07",)}, r"source\.snapshots: 2023-07 "),
        ({"languages": ("en", "xx")}, r"source\.languages: xx "),
        ({"buckets": ("tail",)}, r"source\.buckets \['tail'\]"),
    ],
)
def test_filters_that_leave_nothing_are_refused(tmp_path, filters, message):
    documents(tmp_path, KEY, [])
    documents(tmp_path, "2023-06/0000/en_middle", [])
    with pytest.raises(UserError, match=message):
        shards(tmp_path, **filters)


def test_a_missing_and_an_empty_tree_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"source\.path .*gone"):
        shards(tmp_path / "gone")
    (tmp_path / "documents").mkdir()
    with pytest.raises(UserError, match=r"source\.path .*documents/SNAPSHOT"):
        shards(tmp_path)


def test_missing_files_that_listings_name_are_noted(tmp_path):
    documents(tmp_path, KEY, [])
    (tmp_path / "listings").mkdir()
    (tmp_path / "listings" / "en-2023-06-head_middle.txt").write_text(
        f"# a comment\n{KEY}\n2023-06/0001/en_head\n../../etc/passwd\n"
    )
    inventory = open_source(tmp_path).plan()
    assert [shard.key for shard in inventory.shards] == [KEY]
    [note] = inventory.unread
    assert (note.reason, note.records, note.file) == ("missing_file", 1, "2023-06/0001/en_head")


def test_documents_are_joined_with_signals_by_row_and_not_by_order(tmp_path):
    documents(
        tmp_path,
        KEY,
        [record("one"), record("two\nlines", perplexity=5.5, bucket="head"), record("three")],
    )
    scores = {
        "rps_doc_word_count": [[0, 9, 2.0]],
        "rps_doc_ut1_blacklist": [[0, 9, None]],
        "new_signal": [[0, 9, 7]],
        "empty": [],
    }
    lines = {
        "rps_lines_num_words": [[0, 4, 1.0], [4, 8, None], [8, 9, 4]],
        "ccnet_perplexity": [[0, 9, 6.0]],
    }
    signals(
        tmp_path, KEY, [(1, scores | lines), (0, {"rps_doc_word_count": [[0, 3, 1]]})]
    )  # none of row 2
    duplicates(tmp_path, KEY, [2])
    found, faults = everything(tmp_path)
    assert [document.doc_id for document in found] == [f"{KEY}.json.gz/{row}" for row in (0, 1, 2)]
    assert document_number(found[0].doc_id) == 13812950656272331291
    assert found[0].signals == {"rps_doc_word_count": 1.0}
    assert found[1].signals == {
        "rps_doc_word_count": 2.0,
        "new_signal": 7.0,
        "rps_lines_num_words": 2.5,
        "ccnet_perplexity": 6.0,  # the signals file's, not the record's
        "ccnet_bucket": 0.0,
    }
    assert [document.shipped_duplicate for document in found] == [False, False, True]
    assert (found[0].url, found[0].source, found[0].language) == (
        "https://a.example/x",
        "a.example",
        "en",
    )
    assert [(fault.reason, fault.detail, fault.counted) for fault in faults] == [
        ("signals_missing", "1 of 3 documents have no quality signals", False)
    ]


def test_the_tail_has_only_the_signals_of_its_records(tmp_path):
    values = {
        "perplexity": 900.5,
        "language_score": 0.7,
        "length": 4,
        "nlines": 1,
        "original_length": 8,
        "original_nlines": 2,
        "bucket": "tail",
    }
    documents(tmp_path, "2023-06/0000/en_tail", [record("text", **values)])
    found, faults = everything(tmp_path)
    assert found[0].signals == {
        "ccnet_perplexity": 900.5,
        "ccnet_language_score": 0.7,
        "ccnet_length": 4.0,
        "ccnet_nlines": 1.0,
        "ccnet_original_length": 8.0,
        "ccnet_original_nlines": 2.0,
        "ccnet_bucket": 2.0,
    }
    assert found[0].shipped_duplicate is None
    assert faults == []


def test_rows_count_all_lines_and_broken_ones_are_faults(tmp_path):
    lines = [
        record("a"),
        "{broken",
        {"url": "x"},
        record(""),
        record("x\ud800"),
        record("nul\0byte"),
        record("\U0001f600"),
    ]
    documents(tmp_path, KEY, lines)
    found, faults = everything(tmp_path)
    assert [(document.doc_id[-1], document.text) for document in found] == [
        ("0", "a"),
        ("5", "nul\0byte"),
        ("6", "\U0001f600"),
    ]
    expected = [
        (1, "not_json"),
        (2, "no_text"),
        (3, "empty_text"),
        (4, "bad_unicode"),
        (None, "signals_missing"),
    ]
    assert [(fault.row, fault.reason) for fault in faults] == expected


def test_invalid_values_in_records_and_signals_are_left_out(tmp_path):
    documents(
        tmp_path,
        KEY,
        [
            record(
                "a", perplexity="high", length=10**400, language_score=float("nan"), bucket=["head"]
            )
        ],
    )
    spans = {
        "a": [[0, 1, "x"]],
        "b": [[0, 1]],
        "c": 7,
        "d": [[0, 1, float("inf")]],
        "e": None,
        "f": [[0, 1, 1]],
        "g\ud800": [[0, 1, 2]],
    }
    signals(tmp_path, KEY, [(0, spans)])
    found, faults = everything(tmp_path)
    assert found[0].signals == {"f": 1.0, "g?": 2.0}
    assert faults == []


def test_broken_side_files_do_not_lose_documents(tmp_path):
    documents(tmp_path, KEY, [record("a")])
    path = signals(
        tmp_path, KEY, [(0, {"f": [[0, 1, 1]]}), (0, {"f": [[0, 1, 9]]}), (5, {"f": [[0, 1, 1]]})]
    )
    path.write_bytes(path.read_bytes() + b"garbage")
    duplicates(tmp_path, KEY, []).write_bytes(b"no footer")
    found, faults = everything(tmp_path)
    assert [(document.signals, document.shipped_duplicate) for document in found] == [
        ({"f": 1.0}, None)
    ]
    reasons = [
        "signals_bad_gzip",
        "signals_unmatched",
        "duplicates_unreadable",
        "signals_unmatched",
    ]
    assert [(fault.reason, fault.counted) for fault in faults] == [
        (reason, False) for reason in reasons
    ]
    assert faults[-1].detail == "1 lines of quality signals are of rows after its last, 0"


def test_a_duplicates_file_without_its_column_is_a_fault(tmp_path):
    documents(tmp_path, "2023-06/0000/en_tail", [record("a")])
    path = duplicates(tmp_path, "2023-06/0000/en_tail", [])
    pq.write_table(pa.table({"other": [1]}), path)
    assert [fault.reason for fault in everything(tmp_path)[1]] == ["duplicates_unreadable"]


def test_links_out_of_the_tree_are_refused_and_links_inside_are_followed(tmp_path):
    root = tmp_path / "tree"
    documents(tmp_path / "elsewhere", KEY, [record("secret")])
    real = documents(root, "2023-06/0001/en_tail", [record("inside")])
    inside, outside = real.with_name("de_tail.json.gz"), root / "documents" / f"{KEY}.json.gz"
    outside.parent.mkdir(parents=True)
    os.symlink(real, inside)
    os.symlink(tmp_path / "elsewhere" / "documents" / f"{KEY}.json.gz", outside)
    os.symlink("en_middle.json.gz", outside.with_name("en_middle.json.gz"))  # to itself
    found, faults = everything(root)
    assert [document.text for document in found] == ["inside", "inside"]
    assert [(fault.reason, fault.counted) for fault in faults] == [
        ("outside_tree", True),
        ("unreadable_file", True),
    ]


def test_signatures_are_listed_beside_and_do_not_change_the_identity(tmp_path):
    documents(tmp_path, KEY, [record("a")])
    (before,) = shards(tmp_path)
    path = tmp_path / "minhash" / f"{KEY}.minhash.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"signatures")
    (after,) = shards(tmp_path)
    assert [entry.path for entry in after.beside] == [f"minhash/{KEY}.minhash.parquet"]
    assert (before.beside, after.identity()) == ((), before.identity())
    path.unlink()
    os.symlink(__file__, path)  # out of the tree
    assert shards(tmp_path)[0].beside == ()


def test_a_store_reads_like_a_folder(tmp_path):
    elsewhere = UPath(f"memory://{tmp_path.name}")
    for root in (tmp_path, elsewhere):
        documents(root, KEY, [record("a"), "{broken", record("b")])
        signals(root, KEY, [(2, {"f": [[0, 1, 1]]})])
        documents(root, "2023-06/0001/en_tail", [record("c")])
        (root / "minhash" / "2023-06" / "0000").mkdir(parents=True)
        (root / "minhash" / f"{KEY}.minhash.parquet").write_bytes(b"signatures")
    with (elsewhere / "duplicates" / f"{KEY}.duplicates.parquet").open("wb") as file:
        pq.write_table(pa.table({"doc_id": [f"{KEY}.json.gz/2"]}), file)
    duplicates(tmp_path, KEY, [2])
    assert everything(tmp_path) == everything(elsewhere)
    assert everything(elsewhere)[0][1].shipped_duplicate
    for here, there in zip(shards(tmp_path), shards(elsewhere), strict=True):
        assert here.identity() | {"inputs": ()} == there.identity() | {"inputs": ()}
        assert [(entry.path, entry.bytes) for entry in here.inputs[:2]] == [
            (entry.path, entry.bytes) for entry in there.inputs[:2]
        ]
        assert [entry.path for entry in here.beside] == [entry.path for entry in there.beside]


def test_the_identity_of_a_local_shard_has_not_changed(tmp_path):
    os.utime(documents(tmp_path, KEY, []), ns=(5, 7))
    assert shards(tmp_path)[0].identity() == {
        "name": "2023-06_0000_en_head",
        "kind": "rpv2",
        "key": KEY,
        "inputs": [{"path": f"documents/{KEY}.json.gz", "bytes": 20, "modified_ns": 7}],
        "quota": None,
    }
