"""The README's queries have answers, and make has its commands. test_docs_run.py runs the rest."""

import re

from tests.system.test_docs_run import README, ROOT

TEXT = README.read_text(encoding="utf-8")


def test_every_query_has_its_answer() -> None:
    assert len(re.findall(r"```sql\n", TEXT)) >= 5
    assert len(re.findall(r"```\n```text\n[^`\s]", TEXT)) == len(re.findall(r"```sql\n", TEXT))


def test_make_knows_the_commands() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make (\w+)", TEXT, re.MULTILINE)):
        assert f"\n{target}:" in makefile
