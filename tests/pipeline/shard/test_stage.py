import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.columns import SIGNALS_TYPE
from data_catalog.format.layout import Levels
from data_catalog.format.tokens import map_tokens
from pipeline.config import Store, Tokenizer
from pipeline.part_list import list_parts
from pipeline.parts import make_part
from pipeline.shard.ranges import Ranges, plan_ranges, read_ranges
from pipeline.shard.stage import assign_splits, document_files, shard_part, sort_part, token_files
from pipeline.shard.tokenize import load_tokenizer, make_tokenizer
from tests.helpers.parts import assigned_part, source_part, verdicts_part

LEVELS, WIDE = Levels((2, 4)), Levels((2, 8))


def judged_part(folder, signals=None):
    """Return a quality part. `signals` has a list of pairs per document of the source."""

    def make(out):
        if signals is not None:
            pq.write_table(
                pa.table({"signals": pa.array(signals, SIGNALS_TYPE)}), out / "signals.parquet"
            )
        return Account()

    return make_part(folder, f"judged {signals}", make)


@pytest.fixture
def shards(tmp_path):
    """Part a: "one" leaf 3, "two" dropped, "three" leaf 0; part b: "four" leaf 3, "five" leaf 1."""
    sources = [
        source_part(tmp_path / "source" / "a", ["one", "two", "three"]),
        source_part(tmp_path / "source" / "b", ["four", "five"]),
    ]
    verdicts = verdicts_part(tmp_path / "dedup", sources, {"a": [1]})
    tokenizer = make_tokenizer(
        sources, [verdicts] * 2, tmp_path / "tokenizer", Tokenizer(vocabulary=270), 0
    )
    assigned = [
        assigned_part(tmp_path / "assign" / "a", [3, 0]),
        assigned_part(tmp_path / "assign" / "b", [3, 1]),
    ]
    judged = judged_part(tmp_path / "quality")
    ranges = plan_ranges(
        sources,
        [verdicts] * 2,
        [verdicts] * 2,
        assigned,
        tmp_path / "ranges",
        Store(),
        LEVELS,
    )
    runs = [
        sort_part(
            source,
            judged,
            verdicts,
            verdicts,
            leaves,
            tokenizer,
            ranges,
            tmp_path / "sort" / source.name,
            Store(),
            0,
        )
        for source, leaves in zip(sources, assigned, strict=True)
    ]
    every_run = list_parts(runs, tmp_path / "runs")
    return [
        shard_part(leaves, every_run, tmp_path / "shard" / leaves.name, Store())
        for [leaves] in read_ranges(ranges).of_tops(LEVELS)
    ], tokenizer


def test_documents_are_sorted_by_leaf_and_stay_with_their_columns(shards):
    rows = [pq.read_table(document_files(part)[0]).to_pylist() for part in shards[0]]
    assert [
        [(row["leaf"], row["text"], row["doc_id"], round(row["distance"], 1)) for row in top]
        for top in rows
    ] == [
        [(0, "three", "a/2", 0.1), (1, "five", "b/1", 0.1)],
        [(3, "one", "a/0", 0.0), (3, "four", "b/0", 0.0)],
    ]
    assert rows[1][0]["signals"] == [("rps_doc_word_count", 1.0)]
    assert rows[1][0]["digest"] == "fe05bcdcdc4928012781a5f1a2a77cbb5398e106"  # SHA-1 of "one"


def test_tokens_lie_in_the_same_order_and_offsets_find_them(shards):
    parts, tokenizer = shards
    fast, eos = load_tokenizer(tokenizer.folder / "tokenizer.json")
    values, starts = map_tokens(token_files(parts[1])[0])
    assert fast.decode(values[: starts[1] - 1]) == "one"
    assert fast.decode(values[starts[1] : -1]) == "four"
    assert values[-1] == eos
    [offsets] = pq.read_table(parts[1].folder / "offsets.parquet").to_pylist()
    place = {"leaf": 3, "split": "train", "top": 1, "part": 0}
    assert offsets == {**place, "first_row": 0, "rows": 2, "first_token": 0, "tokens": len(values)}
    first, second = pq.read_table(parts[0].folder / "offsets.parquet").to_pylist()
    assert (first["leaf"], second["leaf"], second["first_token"]) == (0, 1, first["tokens"])


def test_the_accounts_count_kept_documents_and_their_tokens(shards):
    tokens = [sum(len(map_tokens(file)[0]) for file in token_files(part)) for part in shards[0]]
    assert [part.account.kept for part in shards[0]] == [
        Tally(rows=2, characters=9, tokens=tokens[0]),
        Tally(rows=2, characters=7, tokens=tokens[1]),
    ]
    assert shards[0][0].account.read == shards[0][0].account.kept


def test_a_top_level_domain_without_documents_is_a_valid_shard(tmp_path, shards):
    wide = Levels((4, 8))  # leaves 0, 1 and 3 lie in domains 0 and 1
    run = shard_inputs(tmp_path, shards[1], ["x"], [3], levels=wide)
    [empty] = Ranges((0, wide.leaves)).of_tops(wide)[2]
    runs = list_parts([run], tmp_path / "listed")
    part = shard_part(empty, runs, tmp_path / "shard" / "2", Store())
    assert part.account == Account()
    assert document_files(part) == token_files(part) == []
    assert pq.read_table(part.folder / "offsets.parquet", schema=tables.OFFSETS).num_rows == 0


def shard_inputs(
    folder,
    tokenizer,
    texts,
    leaves,
    dropped_later=(),
    signals=None,
    name="c",
    levels=WIDE,
    **settings,
):
    """The sorted run of a part whose documents at `dropped_later` were placed and then dropped."""
    source = source_part(folder / "source" / name, texts)
    unique = verdicts_part(folder / f"dedup_{name}", [source])
    final = verdicts_part(folder / f"semantic_{name}", [source], {name: list(dropped_later)})
    assigned = assigned_part(folder / "assign" / name, leaves)
    judged = judged_part(folder / f"quality_{name}", signals)
    ranges = plan_ranges(
        [source],
        [unique],
        [final],
        [assigned_part(folder / "assign" / "all", [0] * len(texts))],
        folder / f"ranges_{name}",
        Store(**settings),
        levels,
    )
    return sort_part(
        source,
        judged,
        unique,
        final,
        assigned,
        tokenizer,
        ranges,
        folder / "sort" / name,
        Store(**settings),
        0,
    )


def documents_of(run, folder):
    [first] = Ranges((0, WIDE.leaves)).of_tops(WIDE)[0]
    part = shard_part(first, list_parts([run], folder / "runs"), folder / "shard", Store())
    return pa.concat_tables(map(pq.read_table, document_files(part))).to_pylist()


def test_a_document_dropped_after_it_was_placed_is_not_stored(tmp_path, shards):
    run = shard_inputs(
        tmp_path, shards[1], ["p", "q", "r", "s"], [0, 3, 1, 2], dropped_later=[1, 3]
    )
    assert (run.account.kept.rows, run.account.read.rows) == (2, 2)
    assert [(row["text"], row["leaf"]) for row in documents_of(run, tmp_path / "shard")] == [
        ("p", 0),
        ("r", 1),
    ]


def test_the_signals_are_those_that_quality_wrote(tmp_path, shards):
    texts = [f"text {i}" for i in range(2_100)]  # over several batches
    run = shard_inputs(
        tmp_path,
        shards[1],
        texts,
        [i % 4 for i in range(2_100)],
        signals=[[("made", float(i))] for i in range(2_100)],
    )
    rows = documents_of(run, tmp_path / "shard")
    assert len(rows) == 2_100
    assert all(row["signals"] == [("made", float(row["text"].split()[1]))] for row in rows)


def test_leaves_that_do_not_fit_the_verdicts_are_refused(tmp_path, shards):
    with pytest.raises(ValueError, match=r"3 leaves. Expected 2"):
        shard_inputs(tmp_path, shards[1], ["p", "q"], [0, 1, 2])


def test_another_threshold_that_drops_the_same_documents_sorts_nothing_again(tmp_path, shards):
    first = shard_inputs(tmp_path, shards[1], ["p", "q"], [0, 1], dropped_later=[1])
    again = shard_inputs(tmp_path, shards[1], ["p", "q"], [0, 1], dropped_later=[1])
    other = shard_inputs(tmp_path, shards[1], ["p", "q"], [0, 1], dropped_later=[0])
    larger = shard_inputs(
        tmp_path, shards[1], ["p", "q"], [0, 1], dropped_later=[0], file_megabytes=9
    )
    assert first.fingerprint == again.fingerprint
    assert len({first.fingerprint, other.fingerprint, larger.fingerprint}) == 3


def test_the_split_is_a_share_of_the_ids_and_the_same_every_time():
    ids = pa.chunked_array(
        [np.random.Generator(np.random.Philox(key=1)).integers(0, 2**64, 20_000, np.uint64)]
    )
    few = np.asarray(assign_splits(ids, 0.1, "train", "heldout")) == "heldout"
    assert 0.09 < few.mean() < 0.11
    assert (
        np.asarray(assign_splits(ids, 0.1, "train", "heldout")) == "heldout"
    ).tolist() == few.tolist()
    assert not (np.asarray(assign_splits(ids, 0.0, "train", "heldout")) == "heldout").any()
    wider = np.asarray(assign_splits(ids, 0.2, "train", "heldout")) == "heldout"
    assert (wider | ~few).all()  # growing the share keeps what was held out
