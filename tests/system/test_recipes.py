"""The recipes of CONTRIBUTING.md, followed in a copy of the code, give parts that work."""

import re
import shutil
import subprocess
import sys
from textwrap import dedent

import pytest

from tests.helpers.repository import ROOT

PACKAGES = ("data_catalog", "pipeline", "trainer", "flows", "tests")
RECIPES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Recipes")[2]


@pytest.fixture
def checkout(tmp_path):
    """A copy of the code that a recipe may change."""
    ignored = shutil.ignore_patterns("__pycache__", "data")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    return tmp_path


def insert(checkout, name, anchor, text, before=False):
    """Insert text after (or before) the only match of a pattern in a file."""
    path = checkout / name
    source = path.read_text(encoding="utf-8")
    [match] = re.finditer(anchor, source, re.MULTILINE)
    place = match.start() if before else match.end()
    path.write_text(source[:place] + text + source[place:], encoding="utf-8")


def write(checkout, name, text):
    path = checkout / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")


def run(checkout, program):
    """Run a program on the changed copy and return what it prints."""
    command = [sys.executable, "-c", dedent(program)]
    environment = {"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin", "HOME": str(checkout)}
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_recipe_has_a_test():
    titles = re.findall(r"^\*\*Add a (?:quality )?(\w+)", RECIPES, re.MULTILINE)
    assert titles == ["source", "rule", "mixer", "stage", "figure"]
    for title in titles:
        assert f"test_add_a_{title}" in globals()


def test_every_path_of_the_recipes_exists():
    for path in re.findall(r"`((?:pipeline|trainer|data_catalog|tests|docs)/[\w/.-]+)`", RECIPES):
        if "NAME" not in path:
            assert (ROOT / path).exists(), path


def test_add_a_source(checkout):
    config = """\
        class Shouted(Settings):
            \"\"\"Lines of one file.\"\"\"

            kind: Literal["shouted"]
            path: Location
            \"\"\"The file.\"\"\"


        """
    insert(checkout, "pipeline/source/config.py", r"^AnySource = ", dedent(config), before=True)
    insert(checkout, "pipeline/source/config.py", r"    Rpv2 \| ", "Shouted | ")
    source = """\
        from pipeline.source.config import Shouted
        from pipeline.source.documents import Document, Inventory, Shard
        from pipeline.source.files import describe_file, find_files
        from pipeline.source.interface import Source


        class ShoutedSource(Source[Shouted]):
            \"\"\"A document per line.\"\"\"

            def plan(self):
                found = find_files(self.section.path, (".loud",), "source.path", "loud")
                [entry] = [describe_file(found.root, file) for file in found.files]
                shard = Shard(
                    name="loud", kind="shouted", root=found.root, key=entry.path, inputs=(entry,)
                )
                return Inventory([shard], found.notes())

            def read(self, shard):
                for i, line in enumerate((shard.root / shard.key).read_text().splitlines()):
                    yield Document(doc_id=str(i), text=line.lower())
        """
    write(checkout, "pipeline/source/shouted.py", source)
    insert(
        checkout,
        "pipeline/source/registry.py",
        r"^from pipeline.source.text import TextSource\n",
        "from pipeline.source.shouted import ShoutedSource\n",
    )
    insert(
        checkout,
        "pipeline/source/registry.py",
        r"^SOURCES: .*\n",
        '    "shouted": ShoutedSource,\n',
    )
    (checkout / "corpus").mkdir()
    (checkout / "corpus" / "a.loud").write_text("BREAD AND BUTTER\nSALT\n")
    program = """
        from pathlib import Path
        from data_catalog.settings import parse
        from pipeline.config import Build
        from pipeline.source.registry import corpus_source
        from pipeline.source.stage import read_shard

        settings = {"out": "out", "source": {"kind": "shouted", "path": "corpus"}}
        source = corpus_source(parse(Build, settings, "test"))
        [shard] = source.plan().shards
        part = read_shard(shard, Path("work"), source)
        print(part.account.kept.rows, [document.text for document in source.read(shard)])
        """
    assert run(checkout, program) == "2 ['bread and butter', 'salt']"


def test_add_a_rule(checkout):
    preset = """\
        "short": (
            Rule(
                id="words", signal="rps_doc_word_count", most=3, because=_ALWAYS, threshold="here"
            ),
        ),
        """
    insert(
        checkout,
        "pipeline/quality/rules.py",
        r"^RULE_PRESETS: .*\n",
        "".join(f"    {line}\n" for line in dedent(preset).splitlines()),
    )
    insert(checkout, "pipeline/config.py", r'preset: Literal\["gopher", ', '"short", ')
    program = """
        from pathlib import Path
        from pipeline.config import Quality
        from pipeline.quality.stage import judge_part
        from tests.helpers.parts import source_part

        part = source_part(Path("source/a"), ["one two three", "one two three four"])
        judged = judge_part(part, Path("quality/a"), Quality(preset="short"))
        print(judged.account.kept.rows, {k: t.rows for k, t in judged.account.dropped.items()})
        """
    assert run(checkout, program) == "1 {'short.words': 1}"


def test_add_a_mixer(checkout):
    mixer = """\
        from dataclasses import dataclass

        import numpy as np

        from trainer.mixers import MixerState, uniform_state


        @dataclass(frozen=True)
        class Greedy:
            \"\"\"All weight on the member with the largest loss.\"\"\"

            needs: frozenset[str] = frozenset({"losses"})

            def start(self, basis):
                return uniform_state(basis)

            def propose(self, state, seen):
                best = np.full(len(state.sampling), 1e-300)
                best[np.argmax(seen.losses)] = 1.0
                return MixerState(np.log(best), best / best.sum())
        """
    write(checkout, "trainer/mixers/greedy.py", mixer)
    insert(checkout, "trainer/mixture_config.py", r"^MixerName = Literal\[\n", '    "greedy",\n')
    insert(checkout, "trainer/mixture_config.py", r"^LEARNING = \(", '"greedy", ')
    choose = '    if mixture.mixer == "greedy":\n        return Greedy()\n'
    insert(
        checkout,
        "trainer/mixers/choose.py",
        r"^    mixer: Mixer = Static\(\)\n",
        choose,
        before=True,
    )
    insert(
        checkout,
        "trainer/mixers/choose.py",
        r"^from trainer.mixers.fixed import Static\n",
        "from trainer.mixers.greedy import Greedy\n",
    )
    program = """
        from pathlib import Path
        import json
        from tests.helpers.tiny_catalog import write_tiny_catalog
        from tests.helpers.tiny_training import tiny_config
        from trainer.loop import train

        catalog = write_tiny_catalog(Path("catalog"))
        config = tiny_config(
            catalog, Path("run"), mixture={"mixer": "greedy"}, training={"steps": 10}
        )
        assert train(config)
        print(max(json.loads(Path("run/weights.json").read_text()).values()))
        """
    assert run(checkout, program) == "1.0"


def test_add_a_stage(checkout):
    stage = '''\
        """Count the letters of each source part."""

        import pyarrow.parquet as pq

        from data_catalog.format.manifest import fingerprint
        from pipeline.parts import make_part

        VERSION = 1


        def count_part(part, folder):
            """Write the number of letters of one part."""

            def make(out):
                texts = pq.read_table(part.folder / "documents.parquet", columns=["text"])["text"]
                (out / "letters.txt").write_text(str(sum(map(len, texts.to_pylist()))))
                return part.account.model_copy(
                    update={"read": part.account.kept, "failed": {}, "dropped": {}}
                )

            return make_part(folder, fingerprint("count", VERSION, part.fingerprint), make)
        '''
    write(checkout, "pipeline/count/stage.py", stage)
    write(checkout, "pipeline/count/__init__.py", "")
    call = '    each("count", count_part, [(p, _folder(work, "count", p)) for p in sources])\n'
    insert(checkout, "pipeline/run.py", r"^    judged = each\(\n", call, before=True)
    insert(
        checkout,
        "pipeline/run.py",
        r"^from pipeline.config import Build\n",
        "from pipeline.count.stage import count_part\n",
    )
    program = """
        from pathlib import Path
        from data_catalog.settings import parse
        from pipeline.config import Build
        from pipeline.run import build
        from tests.helpers.tiny_corpus import write_corpus

        root = build(parse(Build, write_corpus(Path.cwd()), "test"))
        counts = [int(p.read_text()) for p in (root / "work" / "count").glob("*/letters.txt")]
        print(len(counts) == len(list((root / "work" / "source").glob("[!.]*"))), min(counts) > 0)
        """
    assert run(checkout, program) == "True True"


def test_add_a_figure(checkout):
    method = """
            def levels(self):
                \"\"\"Draw the number of documents per level.\"\"\"
                rows = query_records(
                    self.catalog, "SELECT level, sum(documents) AS n FROM domains GROUP BY level"
                )
                bars = graph_objects().Bar(
                    x=[escape(row["level"]) for row in rows], y=[row["n"] for row in rows]
                )
                return finish(graph_objects().Figure(bars), "Documents per level")
        """
    lines = dedent(method).splitlines()
    body = "".join(f"    {line}\n" if line else "\n" for line in lines)
    insert(
        checkout,
        "data_catalog/plot/runs.py",
        r"^class RunFigures\(Figures\):\n    .*\n",
        body,
    )
    program = """
        from pathlib import Path
        import data_catalog
        from tests.helpers.domains_catalog import write_domains_catalog

        catalog = data_catalog.open(write_domains_catalog(Path("catalog")))
        figure = catalog.plot.levels()
        print(figure.layout.title.text, len(figure.data[0].x))
        """
    assert run(checkout, program) == "Documents per level 2"
