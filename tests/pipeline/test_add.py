"""Adding to a finished catalog writes a complete next version and leaves the last one unchanged."""

import json
import shutil

import numpy as np
import pytest

import data_catalog
from data_catalog.errors import UserError
from data_catalog.format.files import open_files
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import read_manifest
from data_catalog.format.tokens import open_target, open_tokens
from data_catalog.settings import parse
from data_catalog.verify import check
from pipeline.add import add
from pipeline.config import Addition
from pipeline.run import one_by_one
from tests.helpers.tiny_corpus import SUBJECTS, sentences


def addition_of(folder, **settings):
    return parse(Addition, {"source": {"kind": "jsonl", "path": str(folder)}, **settings}, "test")


def write_more(folder):
    """Write forty new documents on sailing, one of them twice, and some that are not added.

    These are a document of the corpus, a document of its target, and a line that is not JSON.
    """
    folder.mkdir()
    rows = [
        {"id": f"new-{i}", "text": sentences(SUBJECTS["sailing"], 5000 + i), "source": "more"}
        for i in range(40)
    ]
    rows += [
        {"id": "again", "text": rows[0]["text"]},
        {"id": "known", "text": sentences(SUBJECTS["cooking"], 0)},
    ]
    rows += [{"id": "goal", "text": sentences(SUBJECTS["astronomy"], 1000)}]
    (folder / "more.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + "not json\n"
    )


def states(root):
    return {
        path: path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and not path.is_relative_to(root / "work")
    }


@pytest.fixture(scope="module")
def grown(built, tmp_path_factory):
    """Return the catalog after adding forty documents, and its files before with their times."""
    folder = tmp_path_factory.mktemp("grown")
    root = folder / "catalog"
    shutil.copytree(built[0], root, ignore=shutil.ignore_patterns("work"))
    write_more(folder / "more")
    before = states(root)
    assert add(root, addition_of(folder / "more")) == root
    return root, before


def test_the_new_version_is_sound_and_has_all_documents(grown):
    report = check(grown[0])
    assert report.faults == ()
    assert (report.version, report.documents) == (2, 200)
    catalog = data_catalog.open(grown[0])
    assert catalog.sql("SELECT count(*), count(DISTINCT doc_id) FROM documents").fetchall() == [
        (200, 200)
    ]
    assert catalog.sql(
        "SELECT count(DISTINCT leaf) <= 2 FROM documents WHERE source IN ('sailing', 'more')"
    ).fetchall() == [(True,)]


def test_every_document_that_was_not_added_has_a_reason(grown):
    found = data_catalog.open(grown[0]).sql(
        "SELECT stage, outcome, reason, rows FROM accounting "
        "WHERE stage IN ('source', 'dedup', 'shard')"
    )
    assert found.fetchall() == [
        ("source", "read", None, 163 + 44),
        ("source", "kept", None, 161 + 43),
        ("source", "failed", "no_text", 1),
        ("source", "failed", "not_json", 1 + 1),
        ("dedup", "read", None, 161 + 43),
        ("dedup", "kept", None, 160 + 40),
        ("dedup", "dropped", "dedup.catalog", 2),
        ("dedup", "dropped", "dedup.digest", 1 + 1),
        ("shard", "read", None, 200),
        ("shard", "kept", None, 200),
    ]
    removed = (
        data_catalog.open(grown[0])
        .sql("SELECT reason, sum(rows) FROM removed GROUP BY reason ORDER BY reason")
        .fetchall()
    )
    assert removed == [("dedup.catalog", 2), ("dedup.digest", 2)]
    assert data_catalog.open(grown[0]).sql("SELECT count(*) FROM verdicts").fetchall() == [
        (161 + 43,)
    ]


def test_existing_files_are_unchanged(grown):
    root, before = grown
    after = states(root)
    changed = [
        path.relative_to(root).as_posix() for path, time in before.items() if after[path] != time
    ]
    assert sorted(changed) == ["catalog.duckdb", "catalog.json", "catalog.sql"]


def test_the_earlier_version_is_still_sound(grown, built):
    root = grown[0]
    assert check(root, 1).faults == ()
    old = data_catalog.open(root, version=1)
    assert old.sql("SELECT count(*) FROM documents").fetchall() == [(160,)]
    assert (
        old.manifest.fingerprint
        == read_manifest(built[0]).fingerprint
        == read_manifest(root).parent
    )
    names = old.domain(2, 0, ["doc_id"])["doc_id"].to_pylist()
    assert names == data_catalog.open(built[0]).domain(2, 0, ["doc_id"])["doc_id"].to_pylist()


def test_earlier_sequences_are_the_first_of_their_leaves(grown):
    root = grown[0]
    levels = data_catalog.open(root).levels
    old, new = (open_tokens(open_files(root, version), "train") for version in (1, 2))
    sequences = old.sequences(16)
    assert (new.sequences(16) >= sequences).all()
    assert new.sequences(16).sum() > sequences.sum()
    leaves = np.repeat(np.arange(levels.leaves), sequences)
    rows = np.concatenate([np.arange(n) for n in sequences])
    for before, after in zip(old.read(leaves, rows, 16), new.read(leaves, rows, 16), strict=True):
        assert (before == after).all()


def test_natural_and_the_domains_follow_the_new_documents(grown):
    old, new = (data_catalog.open(grown[0], version) for version in (1, 2))
    [(leaf,)] = new.sql("SELECT mode(leaf) FROM documents WHERE source = 'more'").fetchall()
    both = "SELECT weight, documents FROM distributions JOIN domains USING (level, domain)"
    query = f"{both} WHERE name = 'natural' AND level = 4 AND domain = {leaf}"
    [(before, had)], [(after, has)] = old.sql(query).fetchall(), new.sql(query).fetchall()
    assert after > before + 0.05
    assert has >= had + 30


@pytest.mark.parametrize("settings", [{}, {"dedup": {"memory_megabytes": 64}}])
def test_adding_the_same_again_changes_nothing_and_warns(grown, caplog, settings):
    root = grown[0]
    before = states(root)
    add(root, addition_of(root.parent / "more", **settings))
    assert states(root) == before
    assert f"{root}: this addition is already in the catalog" in caplog.text


def copy(grown, folder):
    shutil.copytree(grown[0], folder / "catalog", ignore=shutil.ignore_patterns("work"))
    return folder / "catalog"


def test_a_target_can_be_added_alone(grown, tmp_path):
    root = copy(grown, tmp_path)
    (tmp_path / "music").mkdir()
    lines = [json.dumps({"text": sentences(SUBJECTS["music"], 7000 + i)}) for i in range(30)]
    lines.append(json.dumps({"text": sentences(SUBJECTS["music"], 3)}))  # a document of the corpus
    (tmp_path / "music" / "train.jsonl").write_text("\n".join(lines) + "\n")
    add(
        root,
        parse(Addition, {"targets": [{"name": "music", "path": str(tmp_path / "music")}]}, "test"),
    )
    assert check(root).faults == ()
    manifest = read_manifest(root)
    assert (manifest.version, list(manifest.targets), manifest.documents) == (
        3,
        ["space", "music"],
        200,
    )
    assert manifest.warnings[-1].startswith("target music: 1 of its texts")
    assert open_target(open_files(root), "music", "align").sequences(8).sum() > 0
    kinds = (
        data_catalog.open(root)
        .sql("SELECT DISTINCT name, kind FROM distributions ORDER BY ALL")
        .fetchall()
    )
    assert kinds == [
        ("music", "distance"),
        ("music", "hard"),
        ("natural", "natural"),
        ("space", "distance"),
        ("space", "hard"),
        ("uniform", "uniform"),
    ]


def test_additions_can_use_tiers_that_the_catalog_lacks(built, tmp_path):
    root = tmp_path / "catalog"
    shutil.copytree(built[0], root, ignore=shutil.ignore_patterns("work"))
    write_more(tmp_path / "more")
    add(
        root, addition_of(tmp_path / "more", dedup={"tiers": ["digest", "semantic"], "cosine": 0.9})
    )
    assert check(root).faults == ()
    catalog = data_catalog.open(root)
    [(stored,)] = catalog.sql("SELECT count(*) FROM documents").fetchall()
    dropped = catalog.sql("SELECT sum(rows) FROM accounting WHERE outcome = 'dropped'").fetchall()[
        0
    ][0]
    assert stored + dropped == 161 + 43
    assert catalog.sql(
        "SELECT count(*) FROM accounting WHERE stage = 'semantic' AND reason = 'dedup.semantic'"
    ).fetchall() == [(1,)]
    assert 160 < stored < 200


def test_invalid_additions_are_refused(grown, tmp_path):
    root = grown[0]
    with pytest.raises(UserError, match="source, targets: "):
        add(root, Addition())
    other = {"name": "space", "path": str(root.parent / "more")}
    with pytest.raises(UserError, match="target space:"):
        add(root, parse(Addition, {"targets": [other]}, "test"))
    with pytest.raises(UserError, match="test: cluster: "):
        parse(Addition, {"cluster": {"granularities": [8]}}, "test")
    with pytest.raises(UserError, match=rf"{tmp_path}: .*catalog\.json"):
        add(tmp_path, addition_of(root.parent / "more"))


def test_another_encoder_is_refused(grown, tmp_path):
    root = copy(grown, tmp_path)
    for path in (Layout(root).manifest, Layout(root).version_manifest):
        manifest = json.loads(path.read_text())
        manifest["encoder"]["sha256"] = "00"
        path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"embed\.model .*'00'"):
        add(root, addition_of(grown[0].parent / "more"))


def test_a_killed_addition_leaves_the_catalog_and_resumes(built, tmp_path):
    root = tmp_path / "catalog"
    shutil.copytree(built[0], root, ignore=shutil.ignore_patterns("work"))
    write_more(tmp_path / "more")

    class Died(Exception):
        pass

    def dying(stage, function, calls):
        if stage == "domains":
            raise Died
        return one_by_one(stage, function, calls)

    with pytest.raises(Died):
        add(root, addition_of(tmp_path / "more"), dying)
    assert read_manifest(root).version == 1
    assert check(root).faults == ()
    made = {path: path.stat().st_mtime_ns for path in root.glob("work/add-*/*/*/part.json")}
    add(root, addition_of(tmp_path / "more"))
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert (check(root).version, check(root).faults) == (2, ())
