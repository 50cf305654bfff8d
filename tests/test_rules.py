import pytest

from data_catalog.errors import UserError
from pipeline.config import Bounds
from pipeline.rules import PRESETS, resolve


def test_presets_have_the_rules_that_people_use():
    assert {name: len(rules) for name, rules in PRESETS.items()} == {"none": 0, "gopher": 15, "together": 5, "c4": 4, "lucie": 21}
    bounds = {rule.id: (rule.signal, rule.least, rule.most) for rule in PRESETS["gopher"]}
    assert bounds["words"] == ("rps_doc_word_count", 50, 100_000)
    assert bounds["bullets"] == ("rps_lines_start_with_bulletpoint", None, 0.9)
    assert bounds["alphabetic"] == ("rps_doc_frac_no_alph_words", None, 0.2)
    assert bounds["top_4gram"] == ("rps_doc_frac_chars_top_4gram", None, 0.16)
    assert bounds["dupe_10grams"] == ("rps_doc_frac_chars_dupe_10grams", None, 0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_each_rule_has_a_name_of_its_own_a_bound_and_the_source_of_it(name):
    rules = PRESETS[name]
    assert len({rule.id for rule in rules}) == len(rules) <= 64  # bits of the mask
    assert all(rule.threshold and (rule.least is not None or rule.most is not None) for rule in rules)


def test_a_threshold_replaces_both_bounds_and_keeps_the_order():
    rules = resolve("c4", {"sentences": Bounds(least=5, most=9), "bad_words": Bounds()})
    assert [(rule.id, rule.least, rule.most) for rule in rules] == [
        ("curly_bracket", None, 0),
        ("lorem_ipsum", None, 0),
        ("bad_words", None, None),
        ("sentences", 5, 9),
    ]
    assert rules[3].threshold == "quality.thresholds of this build"
    assert PRESETS["c4"][3].least == 3


@pytest.mark.parametrize(
    ("preset", "thresholds", "sentence"),
    [
        ("gopher", {"word": Bounds(least=1)}, "quality.thresholds.word: preset gopher has no such rule; did you mean words?"),
        ("none", {"words": Bounds(least=1)}, "its rules: none"),
        ("c4", {"sentences": Bounds(least=3, most=2)}, "least 3.0 is above most 2.0"),
        ("best", {}, "quality.preset best: unknown"),
    ],
)
def test_mistakes_are_refused(preset, thresholds, sentence):
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        resolve(preset, thresholds)
