"""Quality rules as data: each preset is a list of bounds on named signals.

Bits of a document's bitmask follow the order of its preset.
"""

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa

from data_catalog.errors import UserError, suggestion
from data_catalog.settings import Settings
from pipeline.config import Bounds


class Rule(Settings):
    """A rule that keeps a document if `least <= signal <= most`.

    A bound that is None does not apply. `null` decides about documents without the signal.
    """

    id: str
    """Name of the rule."""
    signal: str
    """Name of the quality signal."""
    least: float | None = None
    """Minimum value. None if there is none."""
    most: float | None = None
    """Maximum value. None if there is none."""
    null: Literal["keep", "drop"] = "keep"
    """Treatment of documents that lack the signal."""
    because: str = "only a text without words has none, where signals are shipped or computed"
    """Reason for that treatment."""
    threshold: str
    """Publication that the bounds are taken from."""


_GOPHER = "Rae et al. 2021, Scaling Language Models (Gopher), table A1 and section A1.1"
_CARD = "RedPajama-V2 data card, example of the Gopher rules"
_C4 = "Raffel et al. 2020, Exploring the Limits of Transfer Learning (C4), section 2.2"
_LUCIE = "Lucie training data set, filters of its RedPajama-V2 part"

_ALWAYS = "every text has one, where signals are shipped or computed"
_LIST = "needs a list of words that not every source applied: not looked for is not found"
_MODEL = "needs a model that only some sources ran: not scored is not bad"

_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def _basic(threshold: str) -> tuple[Rule, ...]:
    return (
        Rule(
            id="words",
            signal="rps_doc_word_count",
            least=50,
            most=100_000,
            because=_ALWAYS,
            threshold=threshold,
        ),
        Rule(
            id="mean_word_length",
            signal="rps_doc_mean_word_length",
            least=3,
            most=10,
            threshold=threshold,
        ),
        Rule(id="symbols", signal="rps_doc_symbol_to_word_ratio", most=0.1, threshold=threshold),
        # Stored as the mean over lines, which is the share of lines.
        Rule(
            id="bullets", signal="rps_lines_start_with_bulletpoint", most=0.9, threshold=threshold
        ),
    )


def _ellipsis(threshold: str) -> Rule:
    return Rule(
        id="ellipsis", signal="rps_doc_frac_lines_end_with_ellipsis", most=0.3, threshold=threshold
    )


def _alphabetic(most: float, threshold: str) -> Rule:
    return Rule(
        id="alphabetic", signal="rps_doc_frac_no_alph_words", most=most, threshold=threshold
    )


def _top(threshold: str, sizes: tuple[int, ...] = (2, 3, 4)) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            id=f"top_{n}gram",
            signal=f"rps_doc_frac_chars_top_{n}gram",
            most=_TOP[n],
            because=_ALWAYS,
            threshold=threshold,
        )
        for n in sizes
    )


def _repeated(threshold: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            id=f"dupe_{n}grams",
            signal=f"rps_doc_frac_chars_dupe_{n}grams",
            most=most,
            because=_ALWAYS,
            threshold=threshold,
        )
        for n, most in _REPEATED.items()
    )


_C4_RULES = (
    Rule(
        id="curly_bracket", signal="rps_doc_curly_bracket", most=0, because=_ALWAYS, threshold=_C4
    ),
    Rule(id="lorem_ipsum", signal="rps_doc_lorem_ipsum", most=0, because=_ALWAYS, threshold=_C4),
    Rule(id="bad_words", signal="rps_doc_ldnoobw_words", most=0, because=_LIST, threshold=_C4),
    Rule(id="sentences", signal="rps_doc_num_sentences", least=3, because=_ALWAYS, threshold=_C4),
)

RULE_PRESETS: Mapping[str, tuple[Rule, ...]] = {
    "none": (),
    # Without the rules on repeated lines and required words, as RedPajama-V2 lacks their signals.
    "gopher": (
        *_basic(_GOPHER),
        _ellipsis(_GOPHER),
        # The signal counts punctuation as words. A bound of 0.3 is nearer to Gopher's intention.
        _alphabetic(0.2, _GOPHER),
        *_top(_GOPHER),
        *_repeated(_GOPHER),
    ),
    "together": (*_basic(_CARD), *_top(_CARD, (2,))),
    "c4": _C4_RULES,
    "lucie": (
        *_basic(_LUCIE),
        _ellipsis(_LUCIE),
        _alphabetic(0.3, _LUCIE),
        *_top(_LUCIE),
        *_repeated(_LUCIE),
        *_C4_RULES,
        Rule(
            id="language",
            signal="ccnet_language_score",
            least=0.65,
            because=_MODEL,
            threshold=_LUCIE,
        ),
        Rule(
            id="perplexity",
            signal="ccnet_perplexity",
            least=10,
            most=1_000,
            because=_MODEL,
            threshold=_LUCIE,
        ),
    ),
}


def resolve(preset: str, thresholds: Mapping[str, Bounds]) -> tuple[Rule, ...]:
    """Return the rules of a preset with some bounds replaced.

    The order of the rules, and so the bit of each rule, does not change.

    Raises:
        UserError: The preset is unknown, it has no rule of a given name, or a lower bound is
            greater than its upper bound.
    """
    if preset not in RULE_PRESETS:
        raise UserError(
            f"quality.preset {preset}: unknown preset. "
            f"{suggestion(preset, RULE_PRESETS, 'Known presets')}"
        )
    known = [rule.id for rule in RULE_PRESETS[preset]]
    for name in thresholds:
        if name not in known:
            raise UserError(
                f"quality.thresholds.{name}: preset {preset} has no such rule. "
                f"{suggestion(name, known, 'Its rules')}"
            )
    rules = tuple(_replaced(rule, thresholds.get(rule.id)) for rule in RULE_PRESETS[preset])
    for rule in rules:
        if rule.least is not None and rule.most is not None and rule.least > rule.most:
            raise UserError(
                f"quality.thresholds.{rule.id}: least {rule.least:g} is greater than most "
                f"{rule.most:g}. No document could pass. Set both bounds."
            )
    return rules


def _replaced(rule: Rule, bounds: Bounds | None) -> Rule:
    changes = bounds.model_dump(exclude_none=True) if bounds else {}
    origin = "quality.thresholds of this build"
    if "null" in changes:
        changes["because"] = origin
    if "least" in changes or "most" in changes:
        changes["threshold"] = origin
    return rule.model_copy(update=changes)


_LISTED = pa.schema(
    [
        ("preset", pa.string()),
        ("bit", pa.int64()),  # of failed_rules
        ("rule", pa.string()),
        ("signal", pa.string()),
        ("least", pa.float64()),
        ("most", pa.float64()),
        ("null", pa.string()),
        ("because", pa.string()),
        ("threshold", pa.string()),
    ]
)


def list_rules(rules: Mapping[str, tuple[Rule, ...]] = RULE_PRESETS) -> pa.Table:
    """Return one row per rule of each preset.

    The columns are the bit in `failed_rules`, the signal, the bounds, the meaning of null with its
    reason, and the source of the numbers.
    """
    rows = [
        {"preset": preset, "bit": bit, "rule": rule.id, **rule.model_dump(exclude={"id"})}
        for preset, judged in rules.items()
        for bit, rule in enumerate(judged)
    ]
    return pa.Table.from_pylist(rows, _LISTED)
