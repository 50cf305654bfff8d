import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from pipeline.describe import leakage
from pipeline.describe.leakage import SHARED, leakage_part, leakage_table
from pipeline.parts import Part, make_part
from pipeline.publish.warnings import leakage_warnings
from tests.helpers.passages import passage
from tests.helpers.stored import document_table

QUESTION, TEXT = passage("q", 32), passage("t", 22)  # 20 and 10 13-grams


def target(folder, *rows):
    """A target part of (doc_id, split, text)."""
    table = pa.Table.from_pylist(
        [{"doc_id": name, "split": split, "text": text} for name, split, text in rows],
        tables.TARGET,
    )

    def make(out):
        pq.write_table(table, out / "documents.parquet")
        return Account()

    return make_part(folder, str(rows), make)


def stored(folder, *files):
    """A stored part of files of (text, is_held_out)."""

    def make(out):
        for number, rows in enumerate(files):
            texts, held = [text for text, _ in rows], [held for _, held in rows]
            table = document_table([0] * len(rows), text=texts, held_out=held)
            pq.write_table(table.drop_columns("ids"), out / f"documents-{number:04d}.parquet")
        rows = Tally(rows=sum(map(len, files)))
        return Account(read=rows, kept=rows)

    return make_part(folder, str(files), make)


def shares(part: Part) -> dict[tuple[str, str], float]:
    table = pq.read_table(part.folder / "shared.parquet")
    assert table.schema.equals(SHARED)
    return {(row["name"], row["doc_id"]): row["in_corpus"] for row in table.to_pylist()}


def test_the_largest_share_in_one_train_document_counts(tmp_path):
    quiz = target(tmp_path / "quiz", ("1", "test", QUESTION), ("2", "test", passage("z", 20)))
    books = target(tmp_path / "books", ("1", "align", TEXT), ("3", "align", TEXT))
    words = QUESTION.split()
    corpus = stored(
        tmp_path / "0000",
        [(" ".join(["other", *words[:17]]), False), (QUESTION, True)],  # five of 20
        [(f"{' '.join(words[17:])} {TEXT} again", False), (passage("c", 50), False)],  # three
    )
    part = leakage_part(corpus, [quiz, books], tmp_path / "found")
    expected = {("quiz", "1"): 0.25, ("books", "1"): 1.0, ("books", "3"): 1.0}
    assert shares(part) == expected
    assert part.account.read.rows == part.account.kept.rows == 4


def test_batches_and_a_missing_corpus_change_nothing(tmp_path, monkeypatch):
    quiz = target(tmp_path / "quiz", ("1", "test", QUESTION))
    rows = [(passage(f"c{i}n", 30), False) for i in range(9)]
    corpus = stored(tmp_path / "0000", [*rows, (QUESTION, False)])
    monkeypatch.setattr(leakage, "_READ_ROWS", 2)
    assert shares(leakage_part(corpus, [quiz], tmp_path / "found")) == {("quiz", "1"): 1.0}
    assert shares(leakage_part(corpus, [], tmp_path / "no-target")) == {}
    assert shares(leakage_part(stored(tmp_path / "1"), [quiz], tmp_path / "no-corpus")) == {}


def test_only_the_documents_and_the_targets_make_it_again(tmp_path):
    quiz = target(tmp_path / "quiz", ("1", "test", QUESTION))
    other = target(tmp_path / "again" / "quiz", ("1", "test", TEXT))
    corpus = stored(tmp_path / "0000", [(QUESTION, False), (TEXT, False)])
    first = leakage_part(corpus, [quiz], tmp_path / "1")
    assert leakage_part(corpus, [quiz], tmp_path / "2").fingerprint == first.fingerprint
    for targets in ([other], [quiz, other], []):
        assert leakage_part(corpus, targets, tmp_path / "2").fingerprint != first.fingerprint
    assert shares(leakage_part(corpus, [other], tmp_path / "1")) == {("quiz", "1"): 1.0}
    elsewhere = stored(tmp_path / "0001", [(TEXT, False)])
    assert leakage_part(elsewhere, [quiz], tmp_path / "2").fingerprint != first.fingerprint


@pytest.fixture
def table():
    """One target: a test question is in align, half of another one is, and one is in the corpus."""
    words = QUESTION.split()
    rows = [
        ("a", "align", QUESTION),
        ("b", "align", TEXT),
        ("v", "validation", passage("v", 20)),
        ("t", "test", QUESTION),
        ("u", "test", " ".join([*words[:22], *passage("u", 10).split()])),
        ("w", "test", passage("w", 25)),
    ]
    columns = zip(*rows, strict=True)
    names = ("doc_id", "split", "text")
    documents = {name: list(values) for name, values in zip(names, columns, strict=True)}
    found = [("quiz", "a", 0.5), ("quiz", "w", 0.25), ("quiz", "w", 0.75), ("gone", "w", 1.0)]
    shared = pa.table([list(c) for c in zip(*found, strict=True)], names=SHARED.names)
    return leakage_table({"quiz": pa.table(documents)}, shared.cast(SHARED))


def test_the_table_has_the_largest_share_in_the_corpus_and_in_align(table):
    assert table.schema.equals(tables.LEAKAGE)
    assert [tuple(row.values())[1:] for row in table.to_pylist()] == [
        ("a", "align", 20, 0.5, None),
        ("b", "align", 10, 0.0, None),
        ("v", "validation", 8, 0.0, 0.0),
        ("t", "test", 20, 0.0, 1.0),
        ("u", "test", 20, 0.0, 0.5),
        ("w", "test", 13, 0.75, 0.0),
    ]


def test_noticeable_leakage_is_a_warning(table, monkeypatch):
    corpus, align = leakage_warnings(table)
    assert corpus.startswith("target quiz: for 1 of its 3 test documents (33.3%)")
    assert "minhash" in corpus
    assert align.startswith("target quiz: for 2 of its 3 test documents (66.7%)")
    assert "align split" in align
    monkeypatch.setattr("pipeline.publish.warnings.NOTICEABLE_LEAKAGE", 0.5)
    assert list(leakage_warnings(table)) == [align]
    assert list(leakage_warnings(tables.LEAKAGE.empty_table())) == []
