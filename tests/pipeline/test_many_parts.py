"""More parts than files that a process may have open."""

import json
import resource
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format.encoder_identity import Identity
from data_catalog.format.manifest import read_manifest
from tests.helpers.tiny_corpus import SUBJECTS
from tests.helpers.tiny_encoder import write_encoder

pytestmark = pytest.mark.system

PARTS, FILES = 2_000, 256
DIMENSION, ROWS = 8, 3


def run_limited(code: str, *arguments: object, files: int) -> str:
    """Run Python code in a process that may have at most this number of files open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    head = f"""\
    import resource, sys
    assert {files} < {most}
    resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
    """
    script = textwrap.dedent(head) + textwrap.dedent(code)
    ended = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Parts of three documents each: embeddings, and leaves of which half are in each domain."""
    root = tmp_path_factory.mktemp("parts")
    random = np.random.Generator(np.random.Philox(key=1))
    identity = Identity(
        model="m", sha256="0", dimension=DIMENSION, max_tokens=8, precision="float32"
    ).model_dump_json()
    for number in range(PARTS):
        embedded, assigned = (root / stage / f"{number:05d}" for stage in ("embed", "assign"))
        embedded.mkdir(parents=True)
        vectors = random.normal(size=(ROWS, DIMENSION))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(embedded / "embeddings.npy", vectors.astype(np.float16), allow_pickle=False)
        (embedded / "encoder.json").write_text(identity)
        assigned.mkdir(parents=True)
        leaf = np.arange(number, number + ROWS, dtype=np.uint32) % 2
        pq.write_table(pa.table({"leaf": leaf}), assigned / "leaves.parquet")
    return root


LOAD_PARTS = """
from pathlib import Path
from data_catalog.format.accounts import Account
from data_catalog.format.layout import Levels
from pipeline.parts import Part

root, out = map(Path, sys.argv[1:])
embedded, assigned = (
    [Part(folder, folder.name, Account(), 0) for folder in sorted((root / stage).iterdir())]
    for stage in ("embed", "assign")
)
"""
TRAIN = """
from pipeline.cluster.stage import train_tree
from pipeline.config import Cluster

config = Cluster(granularities=(4,), min_points=1, iterations=2, workers=2)
train_tree(embedded, out / "tree", config, 0)
"""
NEAR = """
from pipeline.config import Dedup
from pipeline.dedup.semantic import near_part

near_part(0, embedded, assigned, out / "near", Levels((2,)), Dedup(cosine=0.8))
"""


def test_a_tree_is_trained_on_more_parts_than_files_may_be_open(tmp_path, parts):
    run_limited(LOAD_PARTS + TRAIN, parts, tmp_path, files=FILES)
    assert json.loads((tmp_path / "tree" / "tree.json").read_text())["documents"] == PARTS * ROWS


def test_near_copies_are_found_among_more_parts_than_files_may_be_open(tmp_path, parts):
    run_limited(LOAD_PARTS + NEAR, parts, tmp_path, files=FILES)
    assert pq.read_table(tmp_path / "near" / "near.parquet").num_rows > 0


BUILD = """
import json
from pathlib import Path
from pipeline.config import Addition, Build
from pipeline.add import add
from pipeline.run import build

build(Build.model_validate_json(sys.argv[1]))
config = json.loads(sys.argv[1])
config["source"]["path"] = sys.argv[2]
addition = {name: config[name] for name in ("source", "dedup")}
add(Path(sys.argv[3]), Addition.model_validate(addition))
"""


def write_shards(folder, shards, first):
    """Write shards of three documents each, of which the third is a copy in half of them."""
    folder.mkdir()
    subjects = list(SUBJECTS.values())
    for number in range(first, first + shards):
        words = subjects[number % 4]
        texts = [f"{words[i]} {words[number % 10]} {number + i}" for i in range(2)]
        texts.append(f"{words[0]} and {words[1]} {number // 2}")
        rows = [json.dumps({"id": f"{number}-{i}", "text": text}) for i, text in enumerate(texts)]
        (folder / f"{number:05d}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.slow
def test_a_build_and_an_addition_of_more_shards_than_files_may_be_open(tmp_path):
    words = [word for subject in SUBJECTS.values() for word in subject]
    dedup = {"tiers": ["digest", "minhash", "semantic"], "cosine": 0.99}
    config = {
        "out": str(tmp_path / "catalog"),
        "source": {"kind": "jsonl", "path": str(write_shards(tmp_path / "corpus", 400, 0))},
        "dedup": dedup,
        "embed": {"model": str(write_encoder(tmp_path / "encoder", words)), "max_tokens": 32},
        "cluster": {"granularities": [4, 16], "min_points": 4},
        "tokenizer": {"vocabulary": 400},
    }
    more = write_shards(tmp_path / "more", 200, 1_000)
    run_limited(BUILD, json.dumps(config), more, tmp_path / "catalog", files=128)
    manifest = read_manifest(tmp_path / "catalog")
    assert manifest.version == 2
    assert manifest.documents > 50  # most are near copies for so small an encoder
