"""The run page: hostile text and the content security policy."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from flows.pages.run import write_report
from tests.helpers.page_text import data_of
from tests.helpers.tiny_run import add_records, change_config, write_catalog, write_run

TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], ["date"]]
HOSTILE = (
    "</script><img src=x onerror=alert(1)><!-- {{data}} \u202eABC \u05d0\u05d1 " + "long" * 100
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    hostile = write_catalog(tmp_path / "c", [1000, 2000, 2000, 5000], [[HOSTILE]] * 4)
    basis = [HOSTILE, "natural\x00"]
    run = write_run(tmp_path / "{{data}}<b>", basis=basis, target=HOSTILE, mixer="<i>dga")
    add_records(
        run,
        {"kind": "eval", "step": 50, "tokens": 20_000, "set": HOSTILE, "loss": 1.0, "error": 0.1},
    )
    accepted = {"what": HOSTILE, "old": HOSTILE, "new": {HOSTILE: HOSTILE}}
    change_config(run, history=[{"when": HOSTILE, "step": 1, **accepted}])
    (run / "fault.json").write_text(
        json.dumps({"step": 1, "cause": HOSTILE, "sequences": [{"leaf": HOSTILE}]})
    )
    (run / "accuracy.json").write_text(json.dumps({"tasks": {HOSTILE: {"acc": 0.5}}}))
    page = write_report([run], tmp_path / "r.html", hostile)
    text = page.read_text()
    assert text.count("</script>") == text.count("<script>") + 1  # one more for the data
    for markup in ("<img", "<i>", "<b>", "\x00"):
        assert markup not in text
    assert data_of(page)["weights"][0]["names"] == basis
    assert data_of(page)["runs"][0]["label"] == "{{data}}<b>"


def test_the_policy_allows_exactly_the_inlined_scripts_and_style(tmp_path: Path) -> None:
    text = write_report([write_run(tmp_path / "a")], tmp_path / "r.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    inlined = re.findall(r"<style>(.*?)</style>", text, re.S) + re.findall(
        r"<script>(.*?)</script>", text, re.S
    )
    hashes = [
        f"sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}"
        for part in inlined
    ]
    assert policy.startswith("default-src 'none'; ")
    assert "connect-src" not in policy
    assert re.findall(r"sha256-[^']*", policy) == hashes
    assert not re.search(r"""(?:src|href)=["']?(?!data:)[a-z]*:?//""", text)
