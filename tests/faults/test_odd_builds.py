"""Whole builds of corpora with odd files, in folders with odd names."""

import gzip
import json

import pyarrow.parquet as pq
import pytest

import data_catalog
from data_catalog.settings import parse
from data_catalog.verify import check
from flows.cli.summary import print_build, print_estimate
from flows.pages.catalog import write_catalog_page
from pipeline.add import add
from pipeline.config import Addition, Build
from pipeline.planning.estimate import estimate_build
from pipeline.run import build
from tests.helpers.faults import Wrong
from tests.helpers.tiny_corpus import write_corpus

pytestmark = pytest.mark.faults(
    "Builds of odd files",
    tried="A build and an addition in a folder named `my[1] *cat's ::x`, with a truncated file, "
    "other endings, hidden files, ids that are numbers, labels and columns that match nothing.",
    expected="Damaged files and what matches nothing are warnings of the catalog. Numbers of "
    "files, lines and fields are in its accounting, in what plan and build print, and on its page.",
)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("builds") / "my[1] *cat's ::x"
    folder.mkdir()
    settings = write_corpus(folder)
    corpus = folder / "corpus"
    lines = "".join(json.dumps({"id": i, "text": f"Number {i}. " * 9}) + "\n" for i in range(9))
    (corpus / "cut.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-6])
    (corpus / "README.md").write_text("x")
    (corpus / ".hidden.jsonl").write_text(lines)
    (corpus / "unmounted").symlink_to("/nowhere/at/all")
    (folder / "labels.csv").write_text("doc_id,kind\n1000,a\n1001,b\n")
    settings["source"]["columns"] = {"url": "link"}
    settings["labels"] = {"path": str(folder / "labels.csv"), "column": "kind"}
    config = parse(Build, settings, "test")
    return folder, config, build(config)


def expect(text, *words):
    if missing := [word for word in words if word not in text]:
        raise Wrong(f"{missing} not in {text}")


def test_the_manifest_warns(odd):
    warnings = "\n".join(data_catalog.open(odd[2]).manifest.warnings)
    expect(warnings, "cut.jsonl.gz: truncated_gzip", "dangling_link", "unmounted")
    expect(warnings, 'source.columns.url: no document has a field "link"')
    expect(warnings, "none of its 2 ids", "1000")


def test_the_accounting_counts_and_the_quarantine_has_examples(odd):
    catalog = data_catalog.open(odd[2])
    noted = dict(
        catalog.sql("SELECT reason, rows FROM accounting WHERE outcome = 'noted'").fetchall()
    )
    if noted != {"no_url": 170, "other_ending": 1, "hidden": 1, "dangling_link": 1}:
        raise Wrong(str(noted))
    files = dict(catalog.sql("SELECT reason, min(file) FROM quarantine GROUP BY ALL").fetchall())
    if files["other_ending"] != "README.md" or files["truncated_gzip"] != "cut.jsonl.gz":
        raise Wrong(str(files))


def test_the_terminal_and_the_page_show_both(odd, capsys):
    print_build(odd[2])
    expect(
        capsys.readouterr().out, "warning: cut.jsonl.gz: truncated_gzip", "README.md", "hidden 1"
    )
    page = write_catalog_page(odd[2], odd[0] / "page.html").read_text()
    expect(page, "README.md", "other_ending", "cut.jsonl.gz")


def test_plan_says_the_same(odd, capsys):
    _, config, root = odd
    estimate = estimate_build(config)
    read = (
        data_catalog.open(root)
        .sql("SELECT rows FROM accounting WHERE stage = 'source' AND outcome = 'kept'")
        .fetchall()[0][0]
    )
    if estimate.documents.likely != read:
        raise Wrong(f"plan {estimate.documents}, build {read}")
    print_estimate(estimate)
    expect(capsys.readouterr().out, "truncated_gzip 1", "README.md", "hidden 1")


def test_numbers_are_ids(odd):
    [(found,)] = (
        data_catalog.open(odd[2])
        .sql("SELECT count(*) FROM documents WHERE doc_id IN ('0', '8')")
        .fetchall()
    )
    if found != 2:
        raise Wrong(f"{found} of 2")


def test_an_addition_and_its_check(odd):
    folder, _, root = odd
    more = folder / "more"
    more.mkdir()
    (more / "std::a.jsonl").write_text('{"id": 77, "text": "One more document."}\n')
    (more / "b.jsonl").write_bytes(b"")
    source = {"kind": "jsonl", "path": str(more)}
    add(root, parse(Addition, {"source": source}, "test"))
    if problems := check(root).faults:
        raise Wrong(str(problems))
    catalog = data_catalog.open(root)
    expect("\n".join(catalog.manifest.warnings), "b.jsonl: empty_file", "cut.jsonl.gz")
    rows = catalog.sql("SELECT doc_id FROM documents WHERE doc_id = '77'").fetchall()
    if rows != [("77",)]:
        raise Wrong(str(rows))
    pq.read_table(data_catalog.open(root).files.layout.quarantine)
