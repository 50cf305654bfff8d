import pytest

from data_catalog.errors import UserError
from data_catalog.settings import parse
from pipeline.config import Bounds, Quality
from pipeline.quality.rules import RULE_PRESETS, list_rules, resolve
from pipeline.quality.signals.measure import SIGNAL_NAMES


def test_presets_have_the_published_rules():
    assert {name: len(rules) for name, rules in RULE_PRESETS.items()} == {
        "none": 0,
        "gopher": 15,
        "together": 5,
        "c4": 4,
        "lucie": 21,
    }
    bounds = {rule.id: (rule.signal, rule.least, rule.most) for rule in RULE_PRESETS["gopher"]}
    assert bounds["words"] == ("rps_doc_word_count", 50, 100_000)
    assert bounds["bullets"] == ("rps_lines_start_with_bulletpoint", None, 0.9)
    assert bounds["alphabetic"] == ("rps_doc_frac_no_alph_words", None, 0.2)
    assert bounds["top_4gram"] == ("rps_doc_frac_chars_top_4gram", None, 0.16)
    assert bounds["dupe_10grams"] == ("rps_doc_frac_chars_dupe_10grams", None, 0.1)


@pytest.mark.parametrize("name", RULE_PRESETS)
def test_each_rule_has_a_unique_name_a_bound_and_a_source(name):
    rules = RULE_PRESETS[name]
    assert len({rule.id for rule in rules}) == len(rules) <= 64  # bits of the mask
    assert all(
        rule.threshold and (rule.least is not None or rule.most is not None) for rule in rules
    )


def test_a_threshold_replaces_what_it_gives_and_keeps_the_order():
    rules = resolve(
        "gopher",
        {"words": Bounds(least=5), "alphabetic": Bounds(most=0.3), "bullets": Bounds(null="drop")},
    )
    assert [rule.id for rule in rules] == [rule.id for rule in RULE_PRESETS["gopher"]]
    found = {rule.id: (rule.least, rule.most, rule.null) for rule in rules}
    assert found["words"] == (5, 100_000, "keep")
    assert found["alphabetic"] == (None, 0.3, "keep")
    assert found["bullets"] == (None, 0.9, "drop")
    changed = "quality.thresholds of this build"
    assert [rule.id for rule in rules if rule.threshold == changed] == ["words", "alphabetic"]
    assert [rule.id for rule in rules if rule.because == changed] == ["bullets"]
    assert RULE_PRESETS["gopher"][0].least == 50


def test_equal_bounds_ask_for_one_value():
    [rule] = [
        r for r in resolve("c4", {"sentences": Bounds(least=3, most=3)}) if r.id == "sentences"
    ]
    assert (rule.least, rule.most) == (3, 3)


def test_empty_bounds_are_refused():
    with pytest.raises(UserError, match=r"test: thresholds\.words: .*least.*most.*null"):
        parse(Quality, {"thresholds": {"words": {}}}, "test")


def test_every_preset_keeps_documents_without_signals_for_a_reason():
    rules = [rule for preset in RULE_PRESETS.values() for rule in preset]
    assert {rule.null for rule in rules} == {"keep"}
    assert all(len(rule.because) > 20 for rule in rules)
    assert "list of words" in next(rule for rule in rules if rule.id == "bad_words").because


def test_every_signal_of_a_rule_is_measured_or_explained():
    rules = [rule for preset in RULE_PRESETS.values() for rule in preset]
    assert {rule.id for rule in rules if rule.signal not in SIGNAL_NAMES} == {
        "bad_words",
        "language",
        "perplexity",
    }
    assert {rule.id for rule in rules if rule.because.startswith("needs")} == {
        "bad_words",
        "language",
        "perplexity",
    }


def test_rules_are_listed_with_their_bits():
    listed = list_rules()
    assert listed.num_rows == 15 + 5 + 4 + 21
    assert listed.to_pylist()[-2] == {
        "preset": "lucie",
        "bit": 19,
        "rule": "language",
        "signal": "ccnet_language_score",
        "least": 0.65,
        "most": None,
        "null": "keep",
        "because": "needs a model that only some sources ran: not scored is not bad",
        "threshold": "Lucie training data set, filters of its RedPajama-V2 part",
    }
    assert list_rules({"none": ()}).num_rows == 0


@pytest.mark.parametrize(
    ("preset", "thresholds", "sentence"),
    [
        (
            "gopher",
            {"word": Bounds(least=1)},
            "quality.thresholds.word: .*words",
        ),
        ("none", {"words": Bounds(least=1)}, "quality.thresholds.words: preset none"),
        (
            "c4",
            {"sentences": Bounds(least=3, most=2)},
            "quality.thresholds.sentences: least 3 .*most 2",
        ),
        (
            "gopher",
            {"words": Bounds(most=20)},
            "quality.thresholds.words: least 50 .*most 20",
        ),
        ("best", {}, "quality.preset best:"),
    ],
)
def test_mistakes_are_refused(preset, thresholds, sentence):
    with pytest.raises(UserError, match=sentence.replace("s.w", r"s\.w")):
        resolve(preset, thresholds)
