"""Each stage's output on a fixed input has the digest stored for the stage's `VERSION`.

`golden.json` maps stages to digests by version. A changed output under the same version would let
catalogs of older code pass for catalogs of this one: raise `VERSION`, add a line above it that says
what changed, and add the new digest here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.parts import SIDECAR, Part
from pipeline.run import build
from pipeline.shard.sorted_runs import SortedRuns
from tests.helpers.tiny_corpus import SUBJECTS, write_corpus

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
MODULES = {  # those whose VERSION is in the stage's fingerprint
    "source": "pipeline.source.stage",
    "quality": "pipeline.quality.stage",
    "protected": "pipeline.dedup.targets",
    "digests": "pipeline.dedup.exact",
    "copies": "pipeline.dedup.exact",
    "sign": "pipeline.dedup.signatures",
    "bands": "pipeline.dedup.bands",
    "pairs": "pipeline.dedup.pairs",
    "resolve": "pipeline.dedup.resolve",
    "dedup": "pipeline.dedup.stage",
    "embed": "pipeline.embed.stage",
    "tree": "pipeline.cluster.stage",
    "assign": "pipeline.cluster.stage",
    "near": "pipeline.dedup.semantic",
    "semantic": "pipeline.dedup.semantic",
    "tokenizer": "pipeline.shard.tokenize",
    "ranges": "pipeline.shard.ranges",
    "sort": "pipeline.shard.stage",
    "shard": "pipeline.shard.stage",
    "targets": "pipeline.distribution",
    "describe": "pipeline.describe.stage",
    "domains": "pipeline.describe.domains",
    "leakage": "pipeline.describe.leakage",
}
DECIMALS = 3  # of a float: processors differ beyond
# Bytes or keys that depend on the processor or a library's version, not on the stage.
LEFT_OUT = {SIDECAR, "encoder.json", "storage.json", "target.json", "tokenizer_config.json"}
LEFT_OUT_KEYS = {"encoder", "device", "distance", "truncation", "padding", "version"}


class SubjectEncoder:
    """A stand-in for the encoder: a text's vector is that of its subject, turned a little."""

    def encode_chunks(self, chunks: Iterator[list[str]]) -> Iterator[np.ndarray]:
        for texts in chunks:
            yield np.array([self.vector(text) for text in texts], np.float32).reshape(-1, 384)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return next(self.encode_chunks(iter([list(texts)])))

    def vector(self, text: str) -> np.ndarray:
        words = set(text.lower().replace(".", "").replace(",", "").split())
        found = [len(words & set(subject)) for subject in SUBJECTS.values()]
        vector = np.zeros(384)
        vector[int(np.argmax(found))] = 0.8
        vector[8 + int(hashlib.sha256(text.encode()).hexdigest(), 16) % 64] = 0.6
        return vector


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Part]]:
    """Build a small catalog with every kind of deduplication. Return its parts by stage."""
    made: dict[str, list[Part]] = {}

    def recorded(
        stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]
    ) -> list[Part]:
        made[stage] = [function(*arguments) for arguments in calls]
        return made[stage]

    folder = tmp_path_factory.mktemp("golden")
    settings = write_corpus(folder, documents=80)
    settings |= {"dedup": {"tiers": ["digest", "minhash", "semantic"]}}
    settings["cluster"] |= {"min_points": 8, "backend": "torch"}
    with pytest.MonkeyPatch.context() as patch:
        for module in ("pipeline.embed.stage", "pipeline.distribution"):
            patch.setattr(f"{module}.load_encoder", lambda *_: SubjectEncoder())
        build(parse(Build, settings, "test"), recorded)
    return made


def plain(value: Any) -> Any:
    """Return `value` without what may differ between processors: floats are rounded."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float):
        return round(value, DECIMALS) + 0.0
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items() if k not in LEFT_OUT_KEYS}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if value is not None and not isinstance(value, bool | int | str) else value


def content(path: Path) -> Any:
    if path.suffix == ".bin":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix == ".parquet":
        return plain(pq.read_table(path).to_pydict())
    if named := re.fullmatch(r"range-(\d+)\.arrow", path.name):
        runs = SortedRuns(path.parent, int(named[1])).read(0, 2**32 - 1)
        return plain([table.to_pydict() for table in runs])
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            return plain(pa.ipc.open_file(source).read_all().to_pydict())
    if path.suffix in (".npy", ".npz"):
        arrays = np.load(path, allow_pickle=False)
        return plain(arrays if path.suffix == ".npy" else dict(arrays))
    return plain(json.loads(path.read_text(encoding="utf-8")))


def digest(parts: Sequence[Part]) -> str:
    everything = {
        f"{part.name}/{path.relative_to(part.folder)}": content(path)
        for part in parts
        for path in sorted(part.folder.rglob("*"))
        if path.is_file() and path.name not in LEFT_OUT
    }
    assert everything
    accounts = [json.loads(part.account.model_dump_json()) for part in parts]
    text = json.dumps([everything, accounts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_every_stage_has_a_digest(parts: dict[str, list[Part]]) -> None:
    assert parts.keys() == MODULES.keys() == GOLDEN.keys()


@pytest.mark.parametrize("stage", MODULES)
def test_digests_change_only_with_the_version(stage: str, parts: dict[str, list[Part]]) -> None:
    version, found = str(import_module(MODULES[stage]).VERSION), digest(parts[stage])
    assert GOLDEN[stage].get(version) == found, (
        f"stage {stage}: its output has the digest {found}, version {version} in golden.json has "
        f"{GOLDEN[stage].get(version)}. If the change is wanted, raise VERSION in "
        f"{MODULES[stage]}, add a line above it that says what changed, and add the digest."
    )
