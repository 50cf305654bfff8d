"""Update the README with the answer below each SQL block and with the newest result tables."""

import argparse
import re
from io import StringIO
from pathlib import Path

from rich.console import Console

import data_catalog
from flows.cli.summary import print_table

README = Path("README.md")
TABLES = ("*-frontier.md",)
ANSWERED = re.compile(r"```sql\n(?P<query>.*?)```\n```text\n.*?```", re.DOTALL)
RESULTS = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)


def answer(catalog: data_catalog.Catalog, query: str) -> str:
    """Return a query and its answer as two Markdown blocks."""
    written = StringIO()
    print_table(catalog.sql(query).to_arrow_table(), Console(file=written))
    table = "\n".join(line.rstrip() for line in written.getvalue().splitlines())
    return f"```sql\n{query}```\n```text\n{table}\n```"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalog", type=Path)
    catalog = data_catalog.open(parser.parse_args().catalog)
    text = ANSWERED.sub(
        lambda block: answer(catalog, block["query"]), README.read_text(encoding="utf-8")
    )
    tables = "".join(newest_table(pattern) for pattern in TABLES)
    README.write_text(RESULTS.sub(lambda _: tables, text), encoding="utf-8")


def newest_table(pattern: str) -> str:
    """Return the title of the newest result file that matches, and two columns of its first table.

    The others hold the figures, which are too wide here.
    """
    newest = max(Path("benchmarks/results").glob(pattern))
    title, _, _, table = newest.read_text(encoding="utf-8").split("\n\n")[:4]
    rows = ["|".join(line.split("|")[:3]) + "|\n" for line in table.strip().splitlines()]
    return f"\n{title.removeprefix('# ')} ([`{newest.name}`]({newest})):\n\n{''.join(rows)}\n"


if __name__ == "__main__":
    main()
