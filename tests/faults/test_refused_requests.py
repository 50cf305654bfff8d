"""Builds that cannot work, through the command line: each is refused before any stage runs."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipeline.embed.identity import locate_model
from tests.flows.cli.test_main import clustermix, toml
from tests.helpers.faults import Wrong
from tests.helpers.tiny_corpus import write_corpus

REQUESTS = pytest.mark.faults(
    "Requests that cannot work",
    tried="Configs of builds, additions and trainings with a tokenizer, encoder, target, label "
    "file, level, model or folder that does not fit, given to build, plan, add, train and "
    "train --dry-run.",
    expected="One sentence that names the key, exit code 2, and nothing is written: no stage and "
    "no training has started.",
)
pytestmark = REQUESTS


def tokenizer(folder: Path, end: str | None = "<end>") -> str:
    """Write a tokenizer with three tokens, and return its folder."""
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<end>": 2}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=end).save_pretrained(folder)
    return str(folder)


def encoder(folder: Path, **changed: object) -> str:
    """Write the configs of the standard encoder with changes by file, and no real weights.

    A file whose content is None is removed.
    """
    shutil.copytree(
        locate_model("all-MiniLM-L6-v2"), folder, ignore=shutil.ignore_patterns("*.safetensors")
    )
    (folder / "model.safetensors").write_bytes(b"weights")
    for name, content in changed.items():
        file = folder / f"{name}.json"
        if content is None:
            file.unlink(missing_ok=True)
        else:
            before = json.loads(file.read_text()) if isinstance(content, dict) else None
            file.write_text(json.dumps({**before, **content} if before else content))
    return str(folder)


def file(path: Path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


def table(path: Path, **columns: list[str]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


CASES = {  # changes of the config, given a folder, and what the message says
    "no tokenizer": (
        lambda at: {"tokenizer": {"path": str(at / "none")}},
        ("tokenizer.path", "not a tokenizer"),
    ),
    "damaged tokenizer": (
        lambda at: {"tokenizer": {"path": str(Path(file(at / "t/tokenizer.json", "{")).parent)}},
        ("tokenizer.path", "not a tokenizer"),
    ),
    "tokenizer without end-of-text": (
        lambda at: {"tokenizer": {"path": tokenizer(at / "t", None)}},
        ("tokenizer.path", "no end-of-text token"),
    ),
    "tiny vocabulary": (
        lambda at: {"tokenizer": {"vocabulary": 100}},
        ("tokenizer.vocabulary", "at least 257"),
    ),
    "no encoder": (
        lambda at: {"embed": {"model": str(at / "none")}},
        ("embed.model", "no such folder"),
    ),
    "encoder without weights": (
        lambda at: {"embed": {"model": str(Path(file(at / "e/config.json", '{"a": 1}')).parent)}},
        ("embed.model", "model.safetensors"),
    ),
    "short encoder": (
        lambda at: {"embed": {"max_tokens": 4096}},
        ("embed.max_tokens 4096", "at most 512"),
    ),
    "encoder without tokenizer": (
        lambda at: {"embed": {"model": encoder(at / "e", tokenizer=None, tokenizer_config=None)}},
        ("embed.model", "fast tokenizer"),
    ),
    "encoder with a damaged tokenizer": (
        lambda at: {"embed": {"model": encoder(at / "e", tokenizer=[])}},
        ("embed.model", "tokenizer"),
    ),
    "encoder of an unknown kind": (
        lambda at: {"embed": {"model": encoder(at / "e", config={"model_type": "unheard"})}},
        ("embed.model", "no config of a transformer"),
    ),
    "encoder with its own code": (
        lambda at: {
            "embed": {
                "model": encoder(
                    at / "e", modules=[{"idx": 0, "name": "0", "path": "", "type": "mine.Module"}]
                )
            }
        },
        ("embed.model", "mine.Module", "never runs"),
    ),
    "encoder with another checksum": (
        lambda at: {"embed": {"sha256": "0" * 64}},
        ("embed.model", "sha256"),
    ),
    "precision that the backend lacks": (
        lambda at: {"embed": {"precision": "int8"}},
        ("embed.precision int8", "float32"),
    ),
    "target without files": (
        lambda at: {"targets": [{"name": "x", "path": str(at / "none")}]},
        ("target x", "none"),
    ),
    "target of an odd name": (
        lambda at: {"targets": [{"name": "a b", "path": str(at)}]},
        ("targets.0.name", "letters A to Z"),
    ),
    "two targets of one name": (
        lambda at: {"targets": [{"name": "x", "path": str(at / "target")}] * 2},
        ("the name x is used more than once",),
    ),
    "target folder of an odd name": (
        lambda at: {"targets_below": str(Path(file(at / "in/Código/a.txt", "x")).parents[1])},
        ("targets_below", "Código", "letters A to Z"),
    ),
    "no folder of targets": (
        lambda at: {"targets_below": str(at / "none")},
        ("targets_below", "not a folder"),
    ),
    "target without the column": (
        lambda at: {"targets": [{"name": "x", "path": table(at / "t.parquet", body=["a"])}]},
        ("target x", "text"),
    ),
    "target without the field": (
        lambda at: {"targets": [{"name": "x", "path": file(at / "t.jsonl", '{"body": "a"}\n')}]},
        ("target x", "no_text"),
    ),
    "corpus without the field": (
        lambda _: {"source.columns": {"text": "body"}},
        ("source.columns.text body", "part-"),
    ),
    "a rule that the preset lacks": (
        lambda _: {"quality": {"preset": "gopher"}, "quality.thresholds.wordz": {"least": 3}},
        ("quality.thresholds.wordz", "no such rule"),
    ),
    "no labels": (
        lambda at: {"labels": {"path": str(at / "none.csv"), "column": "kind"}},
        ("labels", "none.csv"),
    ),
    "labels without the column": (
        lambda at: {"labels": {"path": file(at / "l.csv", "doc_id,x\n1,2\n"), "column": "kind"}},
        ("labels", "kind"),
    ),
    "labels without ids": (
        lambda at: {"labels": {"path": table(at / "l.parquet", kind=["a"]), "column": "kind"}},
        ("labels", "doc_id"),
    ),
    "one domain": (
        lambda at: {"cluster": {"granularities": [1]}},
        ("granularities [1]", "at least 2 domains"),
    ),
    "levels that do not nest": (
        lambda at: {"cluster": {"granularities": [4, 6]}},
        ("granularities [4, 6]", "dividing the next"),
    ),
    "no level": (
        lambda at: {"cluster": {"granularities": []}},
        ("granularities []",),
    ),
    "words in place of a number": (
        lambda at: {"seed": "many"},
        ("seed", "a whole number"),
    ),
    "a number in place of a table": (
        lambda at: {"embed": 3},
        ("embed", "a table"),
    ),
    "no corpus": (
        lambda at: {"source": {"kind": "jsonl", "path": str(at / "none")}},
        ("none",),
    ),
    "corpus of another kind": (
        lambda at: {"source": {"kind": "parquet", "path": str(at / "corpus")}},
        ("corpus",),
    ),
    "a folder of other files": (
        lambda at: {"out": str(Path(file(at / "thesis/chapter.tex", "x")).parent)},
        ("out", "chapter.tex", "not a catalog"),
    ),
    "a file in place of the folder": (
        lambda at: {"out": file(at / "thesis.txt", "x")},
        ("out", "thesis.txt"),
    ),
    "a training config": (
        lambda at: {"catalog": "c", "target": "t"},
        ("this is a training config", "clustermix train"),
    ),
}


def refused(words: tuple[str, ...], *command: object) -> None:
    """Check that a command ends with one sentence that has these words, and exit code 2."""
    done = clustermix(*command)
    if done.returncode == 0:
        raise Wrong(f"{command} was accepted")
    said = [line for line in done.stderr.splitlines() if line.startswith("clustermix: ")]
    assert done.returncode == 2, done.stderr
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "ValidationError" not in done.stderr
    assert not [word for word in words if word not in said[0]], said[0]


@pytest.mark.parametrize("case", CASES)
def test_build_and_plan_refuse_it(tmp_path, case):
    change, words = CASES[case]
    config = write_corpus(tmp_path, documents=8)
    config |= change(tmp_path)
    path = Path(file(tmp_path / "build.toml", toml(config)))
    before = sorted(tmp_path.rglob("*"))
    for command in ("plan", "build"):
        refused(words, command, path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "case",
    ["no tokenizer", "short encoder", "one domain", "a folder of other files"],
)
def test_the_library_refuses_it_too(tmp_path, case):
    from data_catalog.errors import UserError
    from data_catalog.settings import parse
    from pipeline.config import Build
    from pipeline.run import build

    change, words = CASES[case]
    config = write_corpus(tmp_path, documents=8)
    config |= change(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        build(parse(Build, config, "test"))
    assert not [word for word in words if word not in str(error.value)]
    assert sorted(tmp_path.rglob("*")) == before
