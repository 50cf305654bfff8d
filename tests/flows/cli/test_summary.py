"""Tables and summaries printed on the terminal."""

import data_catalog
from data_catalog.query.browse import describe_domain
from flows.cli.summary import (
    NOTABLE_DISTANT_SHARE,
    cut_for_terminal,
    print_build,
    print_domain,
)


def test_the_summary_prints_drops_health_and_targets(built, capsys):
    print_build(built[0], verbose=True)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "dedup 161 160 1 0" in lines
    assert "dedup dropped dedup.digest 1" in lines
    assert [line.split(":")[0] for line in lines if line.startswith("level")] == [
        "level 2",
        "level 4",
    ]
    table = lines.index("target documents tokens effective domains")
    assert "(0, 1, 2, 3)" in lines[table - 1]
    assert lines[table + 1].startswith("space 50 ")
    assert [line.split(":")[0] for line in lines if line.startswith("search")] == [
        "search at level 2 (beam 8)",
        "search at level 4 (beam 8)",
    ]


def test_a_build_ends_with_what_a_user_must_know(built, capsys):
    print_build(built[0])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith(f"{built[0]}: 160 documents, ")
    assert "dedup dropped dedup.digest 1" in lines
    assert "target documents tokens effective domains" in lines
    assert not [line for line in lines if line.startswith(("level", "search", "stage", "tree"))]
    catalog = data_catalog.open(built[0])
    [distant] = catalog.sql("SELECT out_of_distribution FROM targets").fetchall()
    said = [line for line in lines if "of the documents of target space are unlike" in line]
    assert len(said) == (distant[0] >= NOTABLE_DISTANT_SHARE)


def test_untrusted_text_becomes_one_line_without_control_characters():
    assert cut_for_terminal("a\x1b[31mred\x9b\u202eback\u200b\nline", 60) == "a [31mred back line"
    assert cut_for_terminal("x" * 70, 60) == "x" * 57 + "..."
    assert (
        cut_for_terminal("ascii, ümlaut, 漢字, العربية, 🙂", 60)
        == "ascii, ümlaut, 漢字, العربية, 🙂"
    )


def test_the_details_of_a_domain_are_printed(built, capsys):
    print_domain(describe_domain(data_catalog.open(built[0]), 2, 1))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "domain 1 of level 2, leaves 2 to 3"
    assert "children at level 4" in lines
    assert any(line.startswith("space ") for line in lines[lines.index("targets") :])
    assert any(line.startswith("nearest ") for line in lines[lines.index("examples") :])
