"""Cases of public reports, through the command line.

Their inputs lie beside the checkout, in ../shared/cases, and are never part of it. Each has a test
with data of its own, too: here, in `test_odd_files.py`, `test_odd_contents.py` or
`test_refused_requests.py`.
"""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import data_catalog
from data_catalog.verify import check
from tests.faults.test_refused_requests import refused
from tests.flows.cli.test_main import clustermix, toml
from tests.helpers.bad_records import WORDS, write_good
from tests.helpers.faults import Wrong
from tests.helpers.tiny_encoder import write_encoder
from tests.helpers.tiny_training import write_config

pytestmark = pytest.mark.faults(
    "Cases of public reports",
    tried="Inputs of public reports by users of such tools, given to plan, build and train: other "
    "endings and encodings, ids that are numbers, linked and hidden folders, kinds of columns, "
    "names of targets, vocabularies with gaps.",
    expected="The value that each report names as right.",
)

CASES = Path(__file__).parents[3] / "shared" / "cases"
PLANS = {  # case -> kind of source, documents, files and fields by reason
    "dolma-json-gz": ("jsonl", 6, {}),
    "jsonl-bom-concatenated": ("jsonl", 12, {}),
    "jsonl-int-ids": ("jsonl", 6, {"other_ending": 1, "bad_url": 6}),
    "jsonl-misnamed-gz": ("jsonl", 8, {}),
    "jsonl-other-endings": ("jsonl", 7, {"bad_zstd": 1}),
    "parquet-delta": ("parquet", 6, {"hidden": 2}),
    "parquet-kinds/binary.parquet": ("parquet", 6, {}),
    "parquet-kinds/dict.parquet": ("parquet", 6, {}),
    "parquet-kinds/intid.parquet": ("parquet", 6, {}),
    "parquet-kinds/large.parquet": ("parquet", 6, {}),
    "parquet-kinds/nulls.parquet": ("parquet", 1, {"no_text": 5}),
    "parquet-kinds/stamp.parquet": ("parquet", 6, {"bad_language": 6}),
    "parquet-kinds/view.parquet": ("parquet", 6, {}),
}


def case(name):
    if not CASES.is_dir():
        pytest.skip("the folder of cases is not on this machine")
    return CASES / name


@pytest.fixture
def config(tmp_path):
    """Write a config that can be built, and return it with a function that writes its file."""
    settings = write_good(tmp_path, write_encoder(tmp_path / "encoder", WORDS))

    def write(**changes):
        path = tmp_path / "build.toml"
        path.write_text(toml(settings | changes))
        return path

    return settings, write


@pytest.mark.parametrize("name", PLANS)
def test_a_plan(config, name):
    kind, documents, unread = PLANS[name]
    done = clustermix("plan", config[1](source={"kind": kind, "path": str(case(name))}), "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    found = {note["reason"]: note["number"] for note in (*plan["unread"], *plan["faults"])}
    if plan["documents"]["likely"] != documents or found != unread:
        raise Wrong(f"{plan['documents']} and {found}, expected {documents} and {unread}")


def test_a_file_in_utf_16_is_named(config):
    source = {"kind": "jsonl", "path": str(case("jsonl-utf16"))}
    refused(("u16.jsonl", "UTF-16", "Save it as UTF-8"), "plan", config[1](source=source))


def test_linked_folders(config, tmp_path):
    """Neither a plan nor a build leaves out what a link leads to."""
    shutil.copytree(case("linked-folders/elsewhere"), tmp_path / "elsewhere")
    (tmp_path / "linked").mkdir()
    shutil.copy(case("linked-folders/corpus/a.jsonl"), tmp_path / "linked")
    (tmp_path / "linked" / "part2").symlink_to("../elsewhere")
    path = config[1](source={"kind": "jsonl", "path": str(tmp_path / "linked")})
    plan = json.loads(clustermix("plan", path, "--json").stdout)
    if plan["documents"]["likely"] != 6 or plan["unread"]:
        raise Wrong(str(plan))


def test_targets_of_odd_names(config, tmp_path):
    """Hidden folders are no targets. Another is named with the characters that a name may have."""
    shutil.copytree(case("targets-odd-names"), tmp_path / "odd")
    below = tmp_path / "odd" / "targets"
    path = config[1](
        source={"kind": "jsonl", "path": str(tmp_path / "odd" / "c.jsonl")},
        targets=[],
        targets_below=str(below),
    )
    for name in ("Código civil", "it's"):
        for command in ("plan", "build"):
            refused((f"targets_below {below}", name, "letters A to Z"), command, path)
        shutil.rmtree(below / name)
    catalog = build(path, tmp_path)
    if catalog.manifest.targets != ("law",):
        raise Wrong(str(catalog.manifest.targets))
    noted = catalog.sql("SELECT detail FROM quarantine WHERE stage = 'targets'").fetchall()
    if len(noted) != 1 or "2 not read, .ipynb_checkpoints, __MACOSX" not in noted[0][0]:
        raise Wrong(str(noted))


def test_ids_that_are_numbers(config, tmp_path):
    shutil.copytree(case("jsonl-int-ids"), tmp_path / "ids")
    labels = {"path": str(tmp_path / "ids" / "labels.csv"), "column": "kind"}
    source = {"kind": "jsonl", "path": str(tmp_path / "ids")}
    catalog = build(config[1](source=source, labels=labels), tmp_path)
    lines = (tmp_path / "ids" / "i.jsonl").read_text().splitlines()
    found = catalog.sql("SELECT doc_id FROM documents").fetchall()
    if sorted(found) != sorted((str(json.loads(line)["id"]),) for line in lines):
        raise Wrong(str(found))
    warned = [text for text in catalog.manifest.warnings if "none of its 24 ids" in text]
    if not warned or "1000" not in warned[0]:
        raise Wrong(str(catalog.manifest.warnings))


def build(path, folder):
    """Build a catalog through the command line and open it."""
    done = clustermix("build", path)
    assert done.returncode == 0, done.stderr
    if faults := check(folder / "catalog").faults:
        raise Wrong(str(faults))
    return data_catalog.open(folder / "catalog")


def sparse_tokenizer(folder):
    """Write a tokenizer of the 256 bytes whose last tokens have the ids 698 and 699."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters, 1)} | {"th": 698, "the": 699}
    fast = Tokenizer(models.BPE({"<end>": 0, **vocabulary}, [("t", "h"), ("th", "e")]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<end>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("own", [True, False], ids=["own data", "case"])
def test_a_vocabulary_with_a_gap_trains(config, tmp_path, own, forked_trainer):
    made = sparse_tokenizer(tmp_path / "tokenizer") if own else case("tokenizers/sparse-small")
    catalog = build(config[1](tokenizer={"path": str(made)}), tmp_path)
    if catalog.manifest.tokenizer.vocabulary != 700:
        raise Wrong(str(catalog.manifest.tokenizer))
    path = write_config(tmp_path, tmp_path / "catalog", tmp_path / "run")
    words = ("--set", "target=space", "--set", "training.steps=6")
    for dry in (["--dry-run"], []):
        done = clustermix("train", path, *words, *dry)
        assert done.returncode == 0, done.stderr
    model = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    if model["vocab_size"] < 700:
        raise Wrong(f"{model['vocab_size']} embeddings")


def test_a_tokenizer_without_end_of_text(config):
    path = config[1](tokenizer={"path": str(case("tokenizers/noeos"))})
    for command in ("plan", "build"):
        refused(("tokenizer.path", "no end-of-text token"), command, path)
