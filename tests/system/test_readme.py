"""The README: short, its query has an answer, and make has its commands.

tests/system/test_docs_run.py runs its examples, tests/system/test_results.py checks its figures.
"""

import re

from tests.system.test_docs_run import README, ROOT

TEXT = README.read_text(encoding="utf-8")


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 130


def test_every_query_has_its_answer():
    queries = len(re.findall(r"```sql\n", TEXT))
    assert queries >= 1
    assert len(re.findall(r"```\n```text\n[^`\s]", TEXT)) == queries


def test_make_knows_the_commands():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make (\w+)", TEXT, re.MULTILINE)):
        assert f"\n{target}:" in makefile
