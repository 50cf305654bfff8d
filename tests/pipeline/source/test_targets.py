import json
import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from data_catalog.errors import UserError
from pipeline.config import Build, Target
from pipeline.source.documents import document_number
from pipeline.source.targets import (
    TARGET_DOCUMENTS,
    check_targets,
    read_target,
    skipped_targets,
    split_files,
)
from tests.helpers.passages import passage


def write(path, count, prefix):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(
            json.dumps({"id": f"{prefix}-{i}", "text": f"{prefix} text {i}"}) + "\n"
            for i in range(count)
        )
    )


def build(*targets, **more):
    return Build.model_validate(
        {"out": "out", "source": {"kind": "jsonl", "path": "x"}, "targets": targets, **more}
    )


def read(path):
    return read_target(Target(name="space", path=path), build().source)


def splits(table):
    return Counter(table["split"].to_pylist())


def test_a_file_named_test_is_the_test_split_and_the_others_are_split(tmp_path):
    write(tmp_path / "a" / "train.jsonl", 500, "train")
    write(tmp_path / "a" / "test-0.jsonl", 50, "test")
    write(tmp_path / "b" / "other.jsonl", 500, "other")
    table, faults = read(tmp_path)
    assert table.schema.equals(TARGET_DOCUMENTS)
    assert faults == []
    found = splits(table)
    assert found["test"] == 50
    assert abs(found["align"] - 800) < 40
    assert found.total() == 1_050
    assert {row["doc_id"][:4] for row in table.to_pylist() if row["split"] == "test"} == {"test"}
    assert table["id_int"].to_pylist()[:2] == [document_number("test-0"), document_number("test-1")]


def test_without_a_test_file_there_are_three_splits_by_the_hash_of_the_id(tmp_path):
    write(tmp_path / "a.jsonl", 1_000, "x")
    table, _ = read(tmp_path / "a.jsonl")
    found = splits(table)
    assert [
        abs(found[name] - expected) < 50
        for name, expected in (("align", 600), ("validation", 200), ("test", 200))
    ] == [True] * 3
    (tmp_path / "a.jsonl").write_text(
        "".join(reversed((tmp_path / "a.jsonl").read_text().splitlines(keepends=True)))
    )
    again, _ = read(tmp_path / "a.jsonl")
    assert dict(zip(again["doc_id"].to_pylist(), again["split"].to_pylist(), strict=True)) == dict(
        zip(table["doc_id"].to_pylist(), table["split"].to_pylist(), strict=True)
    )


def test_repeated_ids_are_made_unique(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"id": "1", "text": "x"}\n{"text": "y"}\n' * 2)
    ids = read(tmp_path)[0]["doc_id"].to_pylist()
    assert ids == [
        "1",
        "a.jsonl/1",
        "1@a.jsonl/2",
        "a.jsonl/3",
        "1@b.jsonl/0",
        "b.jsonl/1",
        "1@b.jsonl/2",
        "b.jsonl/3",
    ]


def test_broken_records_are_quarantined(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "x"}\n{"text": ""}\nnot json\n')
    table, faults = read(tmp_path / "a.jsonl")
    assert table["doc_id"].to_pylist() == ["a"]
    assert [(fault.row, fault.reason) for fault in faults] == [
        (1, "empty_text"),
        (2, "not_json"),
    ]


def test_targets_without_documents_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"target space: path .*gone"):
        read(tmp_path / "gone")
    (tmp_path / "a.jsonl").write_text('{"no": "text"}\n')
    with pytest.raises(UserError, match=r"target space: .*\(no_text\)"):
        read(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"target space: .*a\.jsonl"):
        read(tmp_path / "a.jsonl")
    write(tmp_path / "test.jsonl", 3, "t")
    with pytest.raises(UserError, match=r"target space: .*align"):
        read(tmp_path)


def test_an_empty_split_gives_a_warning(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "x"}\n')
    read(tmp_path / "a.jsonl")
    assert [record.args[1] for record in caplog.records] == ["validation", "test"]


def test_splits_of_whole_files_are_close_to_60_20_20():
    found = split_files({"huge": 99, "small": 3, "tiny": 1})
    assert found == {"huge": "align", "small": "validation", "tiny": "test"}
    many = split_files({f"f{i}": 1 + i % 5 for i in range(100)})
    shares = Counter()
    for i in range(100):
        shares[many[f"f{i}"]] += 1 + i % 5
    assert shares == {"align": 180, "validation": 60, "test": 60}


def test_modules_are_split_by_file(tmp_path, monkeypatch):
    folder = tmp_path / "held_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for i in range(40):
        (folder / f"m{i}.py").write_text(
            f'"""Words of {i}."""\ndef f():\n    """More words of {i}."""\n'
        )
    monkeypatch.syspath_prepend(tmp_path)
    source = {
        "kind": "python-docs",
        "packages": ["held_package"],
        "min_characters": 5,
        "held_out_share": 0.8,
    }
    config = build({"name": "held", "modules": ["held_package"]}, source=source)
    check_targets(config)
    table, _ = read_target(config.targets[0], config.source)
    by_file: dict[str, set[str]] = {}
    for row in table.to_pylist():
        by_file.setdefault(row["doc_id"].partition(":")[0], set()).add(row["split"])
    assert 25 <= len(by_file) <= 39
    assert all(len(found) == 1 for found in by_file.values())
    assert set.union(*by_file.values()) == {"align", "validation", "test"}
    nothing = build(
        {"name": "held", "modules": ["held_package"]}, source=source | {"held_out_share": 0.0}
    )
    with pytest.raises(UserError, match=r"raise source\.held_out_share"):
        read_target(nothing.targets[0], nothing.source)


def test_invalid_targets_are_refused_before_work_starts(tmp_path):
    write(tmp_path / "sets" / "space" / "a.jsonl", 3, "x")
    space = {"name": "space", "path": tmp_path / "sets"}
    check_targets(build(space))
    with pytest.raises(UserError, match=r"targets: .*space"):
        check_targets(build(space, targets_below=tmp_path / "sets"))
    with pytest.raises(UserError, match=r"targets_below .*gone"):
        check_targets(build(targets_below=tmp_path / "gone"))
    with pytest.raises(UserError, match=r"target space: path .*gone"):
        check_targets(build({"name": "space", "path": tmp_path / "gone"}))
    with pytest.raises(UserError, match=r"target stats: modules .*python-docs"):
        check_targets(build({"name": "stats", "modules": ["scipy.stats"]}))
    with pytest.raises(UserError, match="target stats: modules: no_such_package "):
        check_targets(
            build(
                {"name": "stats", "modules": ["no_such_package.x"]}, source={"kind": "python-docs"}
            )
        )


def test_files_can_be_parquet_or_remote(tmp_path):
    write(tmp_path / "a.jsonl", 3, "j")
    pq.write_table(
        pa.table({"id": [f"p-{i}" for i in range(40)], "text": [f"text {i}" for i in range(40)]}),
        tmp_path / "b.parquet",
    )
    table, _ = read(tmp_path)
    assert table["doc_id"].to_pylist() == [f"j-{i}" for i in range(3)] + [
        f"p-{i}" for i in range(40)
    ]
    remote = UPath(f"memory://{tmp_path.name}/sets/space")
    for name in ("a.jsonl", "b.parquet"):
        (remote / name).write_bytes((tmp_path / name).read_bytes())
    config = build(targets_below=remote.parent)
    check_targets(config)
    (target,) = config.all_targets()
    assert target.name == "space"
    assert read_target(target, config.source)[0].equals(table)


def test_columns_can_have_other_names_and_a_wrong_one_is_refused(tmp_path):
    pq.write_table(pa.table({"question": [f"why {i}" for i in range(20)]}), tmp_path / "a.parquet")
    config = build({"name": "space", "path": tmp_path, "columns": {"text": "question"}})
    check_targets(config)
    assert read_target(config.targets[0], config.source)[0].num_rows == 20
    with pytest.raises(UserError, match=r'target space: columns\.text: .*"text".* question'):
        check_targets(build({"name": "space", "path": tmp_path}))


def test_a_dataset_has_three_splits_and_a_maximum_of_documents(tmp_path):
    write(tmp_path / "set" / "a.jsonl", 300, "x")
    dataset = {"name": str(tmp_path / "set")}
    config = build(
        {"name": "space", "dataset": dataset},
        {"name": "less", "dataset": dataset, "max_documents": 50},
    )
    check_targets(config)
    whole, less = (read_target(target, config.source)[0] for target in config.targets)
    assert set(splits(whole)) == {"align", "validation", "test"}
    assert (whole.num_rows, less.equals(whole.slice(0, 50))) == (300, True)
    with pytest.raises(UserError, match=r"target space: dataset\.columns\.text: .*\"body\""):
        check_targets(build({"name": "space", "dataset": {**dataset, "columns": {"text": "body"}}}))
    with pytest.raises(UserError, match=r"target space: dataset\.name .*gone"):
        check_targets(build({"name": "space", "dataset": {"name": str(tmp_path / "gone")}}))


def test_a_target_has_one_origin_and_no_field_without_effect():
    for target, sentence in (
        ({}, "one of path.*dataset.*modules"),
        ({"path": "a", "modules": ["b"]}, "one of path.*dataset.*modules"),
        ({"dataset": {"name": "a"}, "columns": {"text": "b"}}, "as dataset.columns"),
        ({"path": "a", "max_documents": 3}, "max_documents.*dataset"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Target(name="space", **target)


def test_hidden_folders_of_targets_are_noted(tmp_path):
    for name in ("law", ".ipynb_checkpoints", os.fsdecode(b"_caf\xe9")):
        (tmp_path / "targets" / name).mkdir(parents=True)
    source = {"kind": "jsonl", "path": str(tmp_path)}
    config = Build.model_validate({"out": "out", "source": source})
    assert skipped_targets(config) == []
    config = config.model_copy(update={"targets_below": tmp_path / "targets"})
    [note] = skipped_targets(config)
    assert (note.reason, note.records, note.counted) == ("hidden", 2, False)
    assert r"_caf\xe9" in note.detail
    assert [target.name for target in config.all_targets()] == ["law"]


def write_questions(path, passages, each=4):
    """Write `each` questions on every passage, one after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"{name}-{i}", "text": f"{passage(name, 40)} {passage(f'{name}x{i}n', 15)}"}
        for name in passages
        for i in range(each)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def split_of(table):
    return dict(zip(table["doc_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def families_of(found):
    """Return the splits of the documents of each passage."""
    families: dict[str, set[str]] = {}
    for doc_id, split in found.items():
        families.setdefault(doc_id.partition("-")[0], set()).add(split)
    return families


def test_documents_that_share_passages_are_in_one_split(tmp_path):
    write_questions(tmp_path / "a.jsonl", [f"p{i}" for i in range(60)])
    found = split_of(read(tmp_path / "a.jsonl")[0])
    families = families_of(found)
    assert all(len(names) == 1 for names in families.values())
    assert set.union(*families.values()) == {"align", "validation", "test"}
    lines = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_text("".join(sorted(lines, key=lambda line: line[::-1])))
    assert split_of(read(tmp_path / "a.jsonl")[0]) == found


def test_a_family_is_in_the_split_of_its_first_document_by_id(tmp_path):
    write(tmp_path / "a.jsonl", 200, "p")
    alone = split_of(read(tmp_path / "a.jsonl")[0])
    rows = [
        {"id": f"p-{i}", "text": passage(f"n{min(i, 199 - i)}w", 20)} for i in reversed(range(200))
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = split_of(read(tmp_path / "a.jsonl")[0])
    for i in range(100):
        first = min(f"p-{i}", f"p-{199 - i}")
        assert found[f"p-{i}"] == found[f"p-{199 - i}"] == alone[first]
    assert found != alone


def test_documents_of_test_files_stay_and_move_no_other(tmp_path):
    write_questions(tmp_path / "train.jsonl", [f"p{i}" for i in range(30)])
    found = split_of(read(tmp_path)[0])
    rows = [{"id": f"t{i}", "text": passage(f"p{i}", 40)} for i in range(30)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "test.jsonl").write_text(lines)
    with_tests = split_of(read(tmp_path)[0])
    assert {with_tests.pop(f"t{i}") for i in range(30)} == {"test"}
    assert set(with_tests.values()) == {"align", "validation"}
    assert all(len(names) == 1 for names in families_of(with_tests).values())
    assert with_tests.keys() == found.keys()
    # one test document has the passages of two families, which stay apart
    rows = [{"id": "t", "text": " ".join(passage(f"p{i}", 40) for i in range(30))}]
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0]) + "\n")
    chained = split_of(read(tmp_path)[0])
    assert chained == {**with_tests, "t": "test"}


def test_pieces_of_text_files_follow_those_of_other_files(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text(passage(f"file{i}n", 60 + i))
    found = split_of(read(tmp_path)[0])
    assert set(found.values()) == {"align", "validation", "test"}
    [other] = [name for name, split in found.items() if split == "test"][-1:]
    (tmp_path / other).write_text((tmp_path / "0.txt").read_text() + " and a few words more")
    again = split_of(read(tmp_path)[0])
    assert again["0.txt"] == again[other]


def test_families_never_empty_a_split(tmp_path, caplog):
    rows = [{"id": f"x-{i}", "text": f"{passage('p', 60)} {i}"} for i in range(9)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = split_of(read(tmp_path / "a.jsonl")[0])
    assert "one by one" in caplog.text
    write(tmp_path / "a.jsonl", 9, "x")
    assert found == split_of(read(tmp_path / "a.jsonl")[0])
