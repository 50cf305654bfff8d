import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.layout import Levels
from data_catalog.tokens import map_tokens
from pipeline.config import Build
from pipeline.shard import shard_part, sort_part, split
from pipeline.tokenize import load_tokenizer, make_tokenizer
from tests.parts import assigned_part, source_part, verdicts_part

LEVELS = Levels((2, 4))


@pytest.fixture
def shards(tmp_path):
    """Part a: "one" leaf 3, "two" dropped, "three" leaf 0; part b: "four" leaf 3, "five" leaf 1."""
    config = Build(out=tmp_path, source={"kind": "jsonl", "path": tmp_path}, tokenizer={"vocabulary": 270}, held_out_share=0)
    sources = [source_part(tmp_path / "source" / "a", ["one", "two", "three"]), source_part(tmp_path / "source" / "b", ["four", "five"])]
    verdicts = verdicts_part(tmp_path / "dedup", sources, {"a": [1]})
    tokenizer = make_tokenizer(sources, verdicts, tmp_path / "tokenizer", config)
    assigned = [assigned_part(tmp_path / "assign" / "a", [3, 0]), assigned_part(tmp_path / "assign" / "b", [3, 1])]
    runs = [
        sort_part(s, verdicts, a, tokenizer, tmp_path / "sort" / s.name, config, LEVELS) for s, a in zip(sources, assigned, strict=True)
    ]
    return [shard_part(top, runs, tmp_path / "shard" / str(top), LEVELS) for top in (0, 1)], tokenizer


def test_documents_are_sorted_by_leaf_and_stay_with_their_columns(shards):
    parts, _ = shards
    rows = [pq.read_table(part.folder / "documents.parquet").to_pylist() for part in parts]
    assert [[(row["leaf"], row["text"], row["doc_id"], round(row["distance"], 1)) for row in top] for top in rows] == [
        [(0, "three", "a/2", 0.1), (1, "five", "b/1", 0.1)],
        [(3, "one", "a/0", 0.0), (3, "four", "b/0", 0.0)],
    ]


def test_tokens_lie_in_the_same_order_and_offsets_find_them(shards):
    parts, tokenizer = shards
    fast, eos = load_tokenizer(tokenizer.folder / "tokenizer.json")
    values, starts = map_tokens(parts[1].folder / "tokens.arrow")
    assert fast.decode(values[: starts[1] - 1]) == "one"
    assert fast.decode(values[starts[1] : -1]) == "four"
    assert values[-1] == eos
    [offsets] = pq.read_table(parts[1].folder / "offsets.parquet").to_pylist()
    assert offsets == {"leaf": 3, "split": "train", "top": 1, "first_row": 0, "rows": 2, "first_token": 0, "tokens": len(values)}
    first, second = pq.read_table(parts[0].folder / "offsets.parquet").to_pylist()
    assert (first["leaf"], second["leaf"], second["first_token"]) == (0, 1, first["tokens"])


def test_the_accounts_count_kept_documents(shards):
    assert [part.account.kept.model_dump() for part in shards[0]] == [{"rows": 2, "characters": 9}, {"rows": 2, "characters": 7}]


def test_a_top_level_domain_without_documents_is_a_valid_shard(tmp_path, shards):
    wide = Levels((4, 8))  # leaves 0, 1 and 3 lie in domains 0 and 1
    source = source_part(tmp_path / "source" / "c", ["x"])
    verdicts = verdicts_part(tmp_path / "dedup_c", [source])
    assigned = assigned_part(tmp_path / "assign" / "c", [3])
    config = Build(out=tmp_path, source={"kind": "jsonl", "path": tmp_path}, held_out_share=0)
    run = sort_part(source, verdicts, assigned, shards[1], tmp_path / "sort" / "c", config, wide)
    part = shard_part(2, [run], tmp_path / "shard" / "2", wide)
    assert part.account.kept.rows == 0
    assert pq.read_table(part.folder / "documents.parquet").num_rows == 0
    assert pq.read_table(part.folder / "offsets.parquet").num_rows == 0
    assert len(map_tokens(part.folder / "tokens.arrow")[0]) == 0


def test_the_split_is_a_share_of_the_ids_and_the_same_every_time():
    ids = pa.chunked_array([np.random.Generator(np.random.Philox(key=1)).integers(0, 2**64, 20_000, np.uint64)])
    few = np.asarray(split(ids, 0.1, "train", "heldout")) == "heldout"
    assert 0.09 < few.mean() < 0.11
    assert (np.asarray(split(ids, 0.1, "train", "heldout")) == "heldout").tolist() == few.tolist()
    assert not (np.asarray(split(ids, 0.0, "train", "heldout")) == "heldout").any()
    wider = np.asarray(split(ids, 0.2, "train", "heldout")) == "heldout"
    assert (wider | ~few).all()  # growing the share keeps what was held out
