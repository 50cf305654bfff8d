"""Two processes with one process id, as in two containers, make the same part."""

import os
import subprocess
import sys

import pytest

from data_catalog.format.accounts import Account
from pipeline.parts import make_part, read_part, sole_builder

pytestmark = pytest.mark.system

MAKE = """
import os, sys, time
os.getpid = lambda: 7
from pathlib import Path
from data_catalog.format.accounts import Account
from pipeline.parts import make_part

def make(out):
    with (out / "x").open("w") as file:
        for _ in range(4):
            file.write("x" * 1_000)
            file.flush()
            time.sleep(0.7)
    (out / "y").write_text("y")
    return Account()

print("ready", flush=True)
sys.stdin.readline()
make_part(Path(sys.argv[1]), "f1", make)
"""


def start(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_part_is_whole_although_two_processes_of_one_id_make_it(tmp_path):
    folder = tmp_path / "work" / "embed" / "a"
    makers = [start(folder), start(folder)]
    for maker in makers:
        maker.stdin.write("go\n")
        maker.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            maker.wait(1)  # the other one starts a second later
    with sole_builder(tmp_path / "work"):  # of a third process, which removes leftovers
        for maker in makers:
            _, errors = maker.communicate(timeout=60)
            assert maker.returncode == 0, errors
    assert read_part(folder).fingerprint == "f1"
    assert sorted(os.listdir(folder)) == ["part.json", "x", "y"]
    assert (folder / "x").read_text() == "x" * 4_000
    assert os.listdir(folder.parent) == ["a"]


def test_the_part_of_the_first_maker_stays(tmp_path):
    def make(text, then):
        def write(out):
            (out / "x").write_text(text)
            then()
            return Account()

        return write

    def second():
        make_part(tmp_path / "a", "f1", make("second", lambda: None))

    make_part(tmp_path / "a", "f1", make("first", second))
    assert (tmp_path / "a" / "x").read_text() == "second"
    assert os.listdir(tmp_path) == ["a"]
