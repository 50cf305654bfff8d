"""The commands of examples/speedrun.sh exist with their options, and its configs are there."""

import re
import shlex
import subprocess

from tests.helpers.repository import ROOT

SCRIPT = ROOT / "examples" / "speedrun.sh"


def commands():
    """Every clustermix command of the script, as a list of words."""
    text = SCRIPT.read_text(encoding="utf-8").replace("\\\n", " ")
    words = shlex.split(text, comments=True)
    starts = [i for i, word in enumerate(words) if word == "clustermix"]
    return [words[i + 1 :] for i in starts]


def test_the_shell_can_read_it():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert SCRIPT.stat().st_mode & 0o111


def test_its_commands_are_in_the_order_of_the_documentation():
    names = [words[0] for words in commands()]
    assert names == ["plan", "build", "verify", "query", "query", "train", "report"]


def test_its_configs_and_settings_are_valid():
    from data_catalog.settings import load
    from pipeline.config import Build
    from trainer.config import Train

    text = SCRIPT.read_text(encoding="utf-8")
    for name in set(re.findall(r"[\w/]+\.toml", text)):
        model = Build if "build" in name else Train
        overrides = ["out=runs/x"] if model is Build else ["out=runs/x", "catalog=catalogs/x"]
        load(model, ROOT / name, overrides)
