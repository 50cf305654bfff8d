import json

import pytest

from data_catalog.errors import UserError
from pipeline.config import Bounds
from pipeline.quality.retune import choose_rules, retune
from tests.helpers.tiny_signals import write_signals


@pytest.fixture
def catalog(tmp_path):
    return write_signals(tmp_path)


def kept(retuned):
    return {row["rules"]: (row["documents"], row["characters"]) for row in retuned.kept.to_pylist()}


def test_the_rules_of_the_catalog_keep_the_same_documents(catalog):
    retuned = retune(catalog)
    assert kept(retuned) == {
        "read": (5, 190),
        "built": (2, 103),
        "asked": (2, 103),
        "back": (0, 0),
        "gone": (0, 0),
    }
    read, built = retuned.kept.to_pylist()[:2]
    assert (read["pass_documents"], read["pass_characters"], read["copies_documents"]) == (
        6,
        200,
        1,
    )
    assert (built["pass_documents"], built["copies_documents"], built["share_documents"]) == (
        3,
        1,
        2 / 6,
    )
    assert built["share_characters"] == 103 / 200


def test_another_threshold(catalog):
    retuned = retune(
        catalog, thresholds={"sentences": Bounds(least=2), "curly_bracket": Bounds(null="drop")}
    )
    assert kept(retuned) == {
        "read": (5, 190),
        "built": (2, 103),
        "asked": (2, 150),
        "back": (1, 50),
        "gone": (1, 3),
    }
    columns = [
        "rule",
        "least",
        "most",
        "null",
        "without",
        "documents",
        "characters",
        "only_documents",
        "only_characters",
    ]
    assert [tuple(row.values()) for row in retuned.rules.select(columns).to_pylist()] == [
        ("curly_bracket", None, 0, "drop", 1, 3, 40, 2, 10),
        ("lorem_ipsum", None, 0, "keep", 6, 0, 0, 0, 0),
        ("bad_words", None, 0, "keep", 6, 0, 0, 0, 0),
        ("sentences", 2, None, "keep", 1, 1, 30, 0, 0),
    ]
    assert retuned.sources.to_pylist() == [
        {"source": "big", "documents": 3, "characters": 180, "built": 1 / 3, "asked": 2 / 3},
        {"source": "small", "documents": 2, "characters": 17, "built": 0, "asked": 0},
        {"source": None, "documents": 1, "characters": 3, "built": 1, "asked": 0},
    ]


def test_another_preset_forgets_the_catalogs_thresholds(catalog):
    manifest = json.loads((catalog / "catalog.json").read_text())
    manifest["config"]["quality"]["thresholds"] = {"sentences": {"least": 1, "most": None}}
    (catalog / "catalog.json").write_text(json.dumps(manifest))
    sentences = [rules[3] for rules in choose_rules(catalog, None, {"sentences": Bounds(most=9)})]
    assert [(rule.least, rule.most) for rule in sentences] == [(1, None), (1, 9)]
    assert choose_rules(catalog, "c4", {})[1][3].least == 3
    assert len(choose_rules(catalog, "gopher", {})[1]) == 15


def test_batches_do_not_change_the_report(catalog, monkeypatch):
    whole = retune(catalog, thresholds={"sentences": Bounds(least=2)})
    monkeypatch.setattr("pipeline.quality.retune._BATCH_ROWS", 1)
    monkeypatch.setattr("pipeline.quality.retune._REGROUP_ROWS", 1)
    assert retune(catalog, thresholds={"sentences": Bounds(least=2)}) == whole


def test_without_verdicts_nothing_counts_as_a_copy(catalog):
    for path in (catalog / "verdicts").iterdir():
        path.unlink()
    assert kept(retune(catalog))["asked"] == (3, 113)


def test_mistakes_are_user_errors(catalog):
    with pytest.raises(UserError, match=r"quality\.thresholds\..*sentences"):
        retune(catalog, thresholds={"sentence": Bounds(least=1)})
    with pytest.raises(UserError, match=r"quality\.preset none: .*gopher, together, c4, lucie"):
        retune(catalog, "none")
    for path in (catalog / "signals").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"signals/"):
        retune(catalog)
    with pytest.raises(UserError, match=r"signals: .*catalog\.json"):
        retune(catalog / "signals")
