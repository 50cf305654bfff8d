from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.columns import SIGNALS_TYPE
from pipeline.config import Quality
from pipeline.parts import Part, make_part
from pipeline.quality.rules import Rule
from pipeline.quality.stage import bitmask, failures, judge_part, read_signals, signals_key
from pipeline.source.documents import Document
from pipeline.source.stage import source_table

RULES = (
    Rule(id="long", signal="words", least=2, most=4, threshold="test"),
    Rule(id="dull", signal="symbols", most=0.5, threshold="test"),
)


def signals(*documents):
    return pa.array(
        [None if found is None else list(found.items()) for found in documents], SIGNALS_TYPE
    )


def source(folder: Path, documents: list[Document]) -> Part:
    def make(out: Path) -> Account:
        pq.write_table(source_table(documents), out / "documents.parquet", row_group_size=2)
        return Account()

    return make_part(folder, f"source {documents}", make)


def quality(**settings):
    return Quality.model_validate(settings)


def test_bounds_are_inclusive_and_missing_values_pass():
    found = signals(
        {"words": 2.0, "symbols": 0.5},
        {"words": 4.0},
        {"words": 1.9},
        {"words": 4.1, "symbols": 0.6},
        {"symbols": 9.0, "other": 1.0},
        {},
        None,
    )
    assert failures(found, RULES).astype(int).tolist() == [
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
    ]


def test_null_is_treated_as_the_rule_states():
    nothing = signals({"words": None}, {"words": float("nan")}, {}, None)
    assert not failures(nothing, RULES).any()
    strict = [RULES[0].model_copy(update={"null": "drop"}), RULES[1]]
    assert failures(nothing, strict).astype(int).tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert failures(signals({"words": 2.0}), strict).tolist() == [[False], [False]]


def test_a_slice_is_judged_by_its_own_signals():
    found = signals({"words": 1.0}, {"words": 3.0}, {"symbols": 1.0}, {"words": 9.0})
    assert failures(found.slice(1, 2), RULES).astype(int).tolist() == [[0, 0], [0, 1]]


def test_bitmask_uses_all_64_bits():
    failed = np.zeros((64, 3), dtype=bool)
    failed[0, 0] = failed[2, 0] = failed[63, 1] = True
    assert bitmask(failed).tolist() == [5, 2**63, 0]
    assert bitmask(np.zeros((0, 2), dtype=bool)).tolist() == [0, 0]


def test_verdicts_name_the_first_rule_and_mark_all(tmp_path):
    documents = [
        Document("a", "good", signals={"rps_doc_num_sentences": 3.0}),
        Document(
            "b", "bräce", signals={"rps_doc_num_sentences": 1.0, "rps_doc_curly_bracket": 0.1}
        ),
        Document("c", "short", signals={"rps_doc_num_sentences": 1.0}),
        Document("d", "\U0001f600"),
    ]
    part = judge_part(
        source(tmp_path / "source", documents),
        tmp_path / "quality",
        quality(preset="c4", compute="never"),
    )
    table = pq.read_table(part.folder / "verdicts.parquet")
    assert table.schema.equals(tables.VERDICTS)
    assert table.select(["characters", "failed_rules", "reason"]).to_pylist() == [
        {"characters": 4, "failed_rules": 0, "reason": None},
        {"characters": 5, "failed_rules": 0b1001, "reason": "c4.curly_bracket"},
        {"characters": 5, "failed_rules": 0b1000, "reason": "c4.sentences"},
        {"characters": 1, "failed_rules": 0, "reason": None},
    ]
    assert part.account == Account(
        read=Tally(rows=4, characters=15),
        kept=Tally(rows=2, characters=5),
        dropped={
            "c4.curly_bracket": Tally(rows=1, characters=5),
            "c4.sentences": Tally(rows=1, characters=5),
        },
    )


def test_a_threshold_changes_the_verdict_and_the_fingerprint(tmp_path):
    part = source(tmp_path / "source", [Document("a", "x", signals={"rps_doc_num_sentences": 1.0})])
    strict = judge_part(part, tmp_path / "quality", quality(preset="c4"))
    lenient = judge_part(
        part, tmp_path / "quality", quality(preset="c4", thresholds={"sentences": {"least": 1}})
    )
    assert (strict.account.kept.rows, lenient.account.kept.rows) == (0, 1)
    assert (
        judge_part(
            part, tmp_path / "quality", quality(preset="c4", thresholds={"sentences": {"least": 1}})
        )
        == lenient
    )
    with pytest.raises(UserError, match=r"quality\.thresholds\..*sentences"):
        judge_part(
            part, tmp_path / "quality", quality(preset="c4", thresholds={"sentence": {"least": 1}})
        )


def test_signals_of_every_document_are_kept_beside_the_verdicts(tmp_path):
    documents = [
        Document("a", "A b c.", source="site", signals={"rps_doc_num_sentences": 9.0, "mine": 1.5}),
        Document("b", "One two {three}.", signals={"ccnet_perplexity": 7.0}),
        Document("c", "One. Two. Three."),
    ]
    part = judge_part(
        source(tmp_path / "source", documents), tmp_path / "quality", quality(preset="c4")
    )
    table = read_signals(part)
    assert table.schema.equals(tables.MEASURED)
    assert (
        table["id_int"].to_pylist()
        == pq.read_table(part.folder / "verdicts.parquet")["id_int"].to_pylist()
    )
    assert table.select(["source", "characters"]).to_pylist() == [
        {"source": "site", "characters": 6},
        {"source": None, "characters": 16},
        {"source": None, "characters": 16},
    ]
    shipped, second, third = (dict(row) for row in table["signals"].to_pylist())
    assert shipped == {"rps_doc_num_sentences": 9, "mine": 1.5}
    assert (
        second["rps_doc_curly_bracket"],
        second["rps_doc_num_sentences"],
        second["ccnet_perplexity"],
    ) == (0.125, 1, 7)
    assert (third["rps_doc_curly_bracket"], third["rps_doc_num_sentences"]) == (0, 3)
    assert pq.read_table(part.folder / "verdicts.parquet")["failed_rules"].to_pylist() == [
        0,
        0b1001,
        0,
    ]
    assert read_signals(part, ["id_int"]).column_names == ["id_int"]


def test_the_key_of_signals_does_not_depend_on_rules(tmp_path):
    part = source(tmp_path / "source", [Document("a", "x")])
    key = signals_key(part, quality())
    assert key == signals_key(part, quality(preset="gopher", thresholds={"words": {"least": 9}}))
    assert key != signals_key(part, quality(compute="never"))
    assert key != signals_key(source(tmp_path / "other", [Document("a", "y")]), quality())


def test_null_can_be_made_to_drop(tmp_path):
    part = source(tmp_path / "source", [Document("a", "x")])
    judged = judge_part(
        part,
        tmp_path / "quality",
        quality(preset="lucie", compute="never", thresholds={"language": {"null": "drop"}}),
    )
    assert judged.account.dropped == {"lucie.language": Tally(rows=1, characters=1)}


@pytest.mark.parametrize("preset", ["none", "lucie"])
def test_every_preset_keeps_documents_without_signals_and_empty_parts(tmp_path, preset):
    config = quality(preset=preset, compute="never")
    one = judge_part(source(tmp_path / "one", [Document("a", "x")]), tmp_path / "q1", config)
    none = judge_part(source(tmp_path / "none", []), tmp_path / "q0", config)
    assert [part.account.kept.rows for part in (one, none)] == [1, 0]
    assert read_signals(one)["signals"].to_pylist() == [[]]
    assert pq.read_table(none.folder / "verdicts.parquet").schema.equals(tables.VERDICTS)
    assert read_signals(none).schema.equals(tables.MEASURED)
