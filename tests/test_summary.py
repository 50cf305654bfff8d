from flows.summary import print_build


def test_the_summary_says_what_was_dropped_how_healthy_each_level_is_and_where_targets_fall(built, capsys):
    print_build(built[0])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "dedup 161 160 dedup.digest 1" in lines
    assert [line.split(":")[0] for line in lines if line.startswith("level")] == ["level 2", "level 4"]
    assert "4 from one source (0, 1, 2, 3)" in lines[-3]
    assert lines[-2] == "target documents tokens out of distribution effective domains"
    assert lines[-1].startswith("space 50 ")
    assert [line.split(":")[0] for line in lines if line.startswith("search")] == [
        "search at level 2 (beam 8)",
        "search at level 4 (beam 8)",
    ]
