import importlib.metadata
import os
import sys
from pathlib import Path

import pytest

from data_catalog.errors import UserError
from pipeline.config import Build
from pipeline.source.documents import Document, Fault
from pipeline.source.interface import Reservations
from pipeline.source.python_docs import (
    DEFAULT_PACKAGES,
    STDLIB,
    PythonDocsSource,
    read_modules,
)

MODULE = '''"""Module words."""
import sys
def short():
    """No."""
class Outer:
    """Outer
       words."""
    def method(self):
        """Method words."""
        def inner():
            """Inner words are not taken."""
    class Inner:
        """Inner class."""
if sys.platform:
    def branch():
        """First branch."""
else:
    def branch():
        """Second branch."""
async def later():
    """Later words."""
def silent(): pass
def surrogate():
    "lone \\ud800 here"
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must never be imported."""
    folder = tmp_path / "zoo_package"
    (folder / "sub").mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "__init__.py").write_text('"""Package words."""\nraise RuntimeError("imported")\n')
    (folder / "module.py").write_text(MODULE)
    (folder / "sub" / "broken.py").write_text("def (:\n")
    (folder / "sub" / "latin.py").write_bytes(
        '# -*- coding: latin-1 -*-\n"""Caf\u00e9 words."""\n'.encode("latin-1")
    )
    (folder / "tests" / "test_it.py").write_text('"""Words of a test."""\n')
    (folder / "guide.rst").write_text("Guide words.\n")
    (folder / "bad.md").write_bytes(b"\xff\xfe\xfa")
    (folder / "LICENSE.txt").write_text("Licence words, everywhere the same.")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def build(**source):
    return Build.model_validate(
        {"out": "out", "source": {"kind": "python-docs", "min_characters": 5, **source}}
    )


def plan(section):
    return PythonDocsSource(section).plan().shards


def everything(config, prefixes=()):
    source = PythonDocsSource(config.source, Reservations(modules=tuple(prefixes)))
    return [item for shard in source.plan().shards for item in source.read(shard)]


def texts(found):
    return {item.doc_id: item.text for item in found if isinstance(item, Document)}


def test_docstrings_and_bundled_texts_become_documents(package):
    found = everything(build(packages=["zoo_package"]))
    assert texts(found) == {
        "zoo_package/zoo_package": "Package words.",
        "zoo_package/zoo_package.module": "Module words.",
        "zoo_package/zoo_package.module:Outer": "Outer\nwords.",
        "zoo_package/zoo_package.module:Outer.method": "Method words.",
        "zoo_package/zoo_package.module:Outer.Inner": "Inner class.",
        "zoo_package/zoo_package.module:branch": "First branch.",
        "zoo_package/zoo_package.module:branch#2": "Second branch.",
        "zoo_package/zoo_package.module:later": "Later words.",
        "zoo_package/zoo_package.sub.latin": "Caf\u00e9 words.",
        "zoo_package/zoo_package/guide.rst": "Guide words.",
    }
    assert {item.source for item in found if isinstance(item, Document)} == {"zoo_package"}
    assert sorted((item.reason, item.file) for item in found if isinstance(item, Fault)) == [
        ("bad_unicode", "zoo_package/zoo_package.module:surrogate"),
        ("bad_utf8", "zoo_package/zoo_package/bad.md"),
        ("not_python", "zoo_package/zoo_package.sub.broken"),
    ]
    assert "zoo_package" not in sys.modules


def test_files_that_are_not_read_are_counted(package):
    (package / "data.json").write_text("{}")
    (package / "sub" / "fast.so").touch()
    (package / "linked").symlink_to(package.parent)
    config = build(packages=["zoo_package"], held_out_share=0.99)
    source = PythonDocsSource(config.source, Reservations(modules=("zoo_package.module",)))
    notes = {note.reason: (note.records, note.file) for note in source.plan().unread}
    assert notes == {
        "other_ending": (2, "zoo_package/data.json"),
        "skipped_folder": (2, "zoo_package/linked"),
        "no_documentation": (1, "zoo_package/LICENSE.txt"),
        "held_out": (1, "zoo_package/module.py"),
    }


def test_marks_of_windows_and_names_that_are_not_utf_8(package):
    (package / "marked.txt").write_bytes(b"\xef\xbb\xbfMarked words.")
    Path(os.fsdecode(os.fsencode(package) + b"/caf\xe9.txt")).write_text("Odd words.")
    (package / os.fsdecode(b"m\xe9.py")).write_text('"""Odd module words."""')
    config = build(packages=["zoo_package"])
    plan(config.source)
    found = texts(everything(config))
    assert found["zoo_package/zoo_package/marked.txt"] == "Marked words."
    assert found[r"zoo_package/zoo_package/caf\xe9.txt"] == "Odd words."
    assert found[r"zoo_package/zoo_package.m\xe9"] == "Odd module words."


def test_documents_have_a_fixed_order_that_the_quota_cuts(package):
    whole = everything(build(packages=["zoo_package"]))
    assert everything(build(packages=["zoo_package"])) == whole
    assert everything(build(packages=["zoo_package"], max_documents=4)) == whole[:4]


def test_short_texts_are_no_documents(package):
    found = texts(everything(build(packages=["zoo_package"], min_characters=14)))
    assert sorted(found.values()) == ["Package words.", "Second branch."]


def test_quotas_follow_the_bytes_of_source(package, tmp_path):
    (tmp_path / "small_module.py").write_text(
        "x"
        * (sum(path.stat().st_size for path in package.rglob("*.py") if "tests" not in path.parts))
    )
    shards = plan(build(packages=["zoo_package", "small_module"], max_documents=100).source)
    assert [(shard.name, shard.quota) for shard in shards] == [
        ("small_module", 50),
        ("zoo_package", 50),
    ]


def test_a_changed_file_changes_the_identity(package):
    before = plan(build(packages=["zoo_package"]).source)
    assert plan(build(packages=["zoo_package"]).source) == before
    (package / "new.py").write_text("")
    assert plan(build(packages=["zoo_package"]).source)[0].identity() != before[0].identity()


@pytest.mark.parametrize("name", ["no_such_package", "sys", "a.b", ""])
def test_packages_without_source_are_refused(name):
    with pytest.raises(UserError, match=r"source\.packages: "):
        plan(build(packages=[name]).source)


def test_the_default_packages_are_those_that_are_installed():
    names = [shard.name for shard in plan(build().source)]
    assert set(names) <= set(DEFAULT_PACKAGES)
    assert {STDLIB, "numpy", "pyarrow", "pydantic"} <= set(names)
    assert names == sorted(names)


def test_real_packages_descriptions_and_topics():
    found = texts(
        everything(
            build(packages=["pydantic", "pydoc_data"], min_characters=300, max_documents=100_000)
        )
    )
    assert (
        found["pydantic/METADATA"] == importlib.metadata.metadata("pydantic").get_payload().strip()
    )
    assert "pydantic/pydantic.main:BaseModel" in found
    assert found["pydoc_data/pydoc_data.topics:lambda"].startswith("Lambdas")
    assert len(found) > 200


def test_each_file_belongs_to_a_target_or_to_the_corpus(package):
    for i in range(20):
        (package / "sub" / f"m{i}.py").write_text(
            f'"""Words of {i}."""\ndef f():\n    """More words of {i}."""\n'
        )
    config = build(packages=["zoo_package"], held_out_share=0.5)
    target = {"name": "sub", "modules": ["zoo_package.sub"]}
    config = Build.model_validate({**config.model_dump(), "targets": [target]})
    corpus = texts(everything(config, ["zoo_package.sub"]))
    held = texts(item for _, item in read_modules(config.targets[0], config.source))
    assert corpus | held == texts(everything(config))
    assert not corpus.keys() & held.keys()
    files = {doc_id.partition(":")[0] for doc_id in held}
    assert 5 <= len(files) <= 16  # half of 21
    assert all(doc_id.startswith("zoo_package/zoo_package.sub.") for doc_id in held)
    assert not files & {doc_id.partition(":")[0] for doc_id in corpus}  # a file is never divided


def test_a_module_prefix_ends_at_a_dot(package):
    (package / "subject.py").write_text('"""Subject words."""\n')
    config = build(packages=["zoo_package"], held_out_share=0.999)
    assert "zoo_package/zoo_package.subject" in texts(everything(config, ["zoo_package.sub"]))
    assert "zoo_package/zoo_package.subject" not in texts(
        everything(config, ["zoo_package.subject"])
    )
