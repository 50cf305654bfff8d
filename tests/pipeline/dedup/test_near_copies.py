"""Near copies: verified pairs, decided in reading order, for any split into parts and buckets."""

from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from pipeline.config import Dedup
from pipeline.dedup import shuffle
from pipeline.dedup.bands import bands_disk
from pipeline.dedup.pairs import FIRST, PREVIOUS, Records, verified_pairs
from pipeline.dedup.resolve import later_copies
from pipeline.dedup.signatures import sign
from pipeline.dedup.sketches import estimate_similarity, minimum_estimate, read_bands
from pipeline.source.documents import text_digest
from tests.helpers.passages import grams_of, passage
from tests.helpers.shuffled import deduplicate, make_parts, reasons_of

BOTH = Dedup(tiers=("digest", "minhash"))


def edit(text: str, *places: int) -> str:
    """Replace the words at some places."""
    words = text.split()
    for place in places:
        words[place] = f"edit{place}"
    return " ".join(words)


def jaccard(a: str, b: str) -> float:
    first, second = grams_of(a), grams_of(b)
    return len(first & second) / len(first | second)


def families(seed: int, number: int = 14) -> list[str]:
    """Return texts in random order: families of originals with copies, edits and edits of edits."""
    random = np.random.Generator(np.random.Philox(key=seed))
    texts: list[str] = []
    for i in range(number):
        family = [passage(f"f{i}w", int(random.integers(60, 200)))]
        for _ in range(int(random.integers(0, 5))):
            before = family[int(random.integers(len(family)))]
            places = random.integers(0, len(before.split()), size=int(random.integers(0, 3)))
            family.append(edit(before, *places.tolist()))
        texts += family
    return [texts[place] for place in random.permutation(len(texts)).tolist()] + [
        "short",
        "short",
        "",
    ]


def verdicts(root, texts, sizes, config=BOTH, targets=()):
    """Return the reason of each text if the texts are split into parts of these sizes."""
    bounds = np.cumsum([0, *sizes]).tolist()
    assert bounds[-1] == len(texts)
    made = [
        make_parts(root, f"p{number}", *((text, None, None) for text in texts[first:end]))
        for number, (first, end) in enumerate(pairwise(bounds))
    ]
    of_targets = {text_digest(text): text for text in targets}
    parts = deduplicate(root / "work", made, config, dict(sorted(of_targets.items())))
    return [reason for reasons in reasons_of(parts).values() for reason in reasons]


@pytest.mark.parametrize("seed", [1, 2])
def test_verdicts_do_not_depend_on_the_split_or_the_number_of_buckets(tmp_path, monkeypatch, seed):
    texts = families(seed)
    targets = [edit(texts[0], 3), texts[1]]
    n = len(texts)
    splits = [
        ([n], 1),
        ([1, 0, n - 1], 16),
        ([n // 2, n - n // 2], 8),
        ([8] * (n // 8) + [n % 8], 1),
    ]
    found = []
    for number, (sizes, buckets) in enumerate(splits):
        monkeypatch.setattr(shuffle, "bucket_count", lambda *_, buckets=buckets: buckets)
        root = tmp_path / str(number)
        found.append(verdicts(root, texts, sizes, targets=targets))
        assert len(list((root / "work" / "pairs").iterdir())) == buckets
    assert all(reasons == found[0] for reasons in found)
    assert {"dedup.digest", "dedup.minhash", "dedup.target", "dedup.near_target", None} == {
        *found[0]
    }


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_what_is_dropped_resembles_a_document_that_stays(tmp_path, seed):
    texts = families(seed)
    reasons = verdicts(tmp_path, texts, [len(texts)], Dedup(tiers=("minhash",)))
    kept = [number for number, reason in enumerate(reasons) if reason is None]
    for number, reason in enumerate(reasons):
        similarity = max(
            (jaccard(texts[number], texts[other]) for other in kept if other < number), default=0
        )
        if reason:
            assert similarity > 0.55  # the estimate is exact to about 0.04
        elif len(texts[number].split()) > 12:
            assert similarity < 0.9  # a band is shared with probability 0.9998


def test_in_a_chain_only_the_middle_is_dropped(tmp_path):
    a = passage("w", 200)
    b = edit(a, *range(0, 20))
    c = edit(b, *range(175, 200))
    assert jaccard(a, b) > 0.75 < jaccard(b, c)
    assert jaccard(a, c) < 0.66
    assert verdicts(tmp_path, [a, b, c], [2, 1]) == [None, "dedup.minhash", None]
    # The order decides: an edit that comes first is near to both others.
    assert verdicts(tmp_path / "2", [b, a, c], [3]) == [None, "dedup.minhash", "dedup.minhash"]


def test_a_document_like_a_dropped_one_and_one_that_stays_is_dropped(tmp_path):
    a = passage("w", 200)
    texts = [a, edit(a, 3), edit(a, 5), edit(a, 3, 5)]
    assert verdicts(tmp_path, texts, [4]) == [None, *["dedup.minhash"] * 3]


def test_copies_that_quality_dropped_do_not_count(tmp_path):
    a = passage("w", 100)
    rows = [(a, None, "c4.rule"), (a, None, None), (edit(a, 4), None, None)]
    parts = deduplicate(tmp_path / "work", [make_parts(tmp_path, "a", *rows)], BOTH)
    assert reasons_of(parts) == {"a": ["c4.rule", None, "dedup.minhash"]}


@pytest.mark.parametrize("texts", [[], ["one"], [passage("w", 40)]])
def test_tiny_corpora(tmp_path, texts):
    assert verdicts(tmp_path, texts, [0, len(texts), 0]) == [None] * len(texts)


def test_an_equal_and_a_near_copy_of_a_target(tmp_path):
    goal = passage("goal", 100)
    texts = [goal, edit(goal, 2), passage("other", 100), "short"]
    found = verdicts(tmp_path, texts, [2, 2], targets=[goal, "short"])
    assert found == ["dedup.target", "dedup.near_target", None, "dedup.target"]


@pytest.mark.parametrize("similarity", [0.7, 0.8, 0.9, 1.0])
def test_the_estimate_is_near_the_jaccard_similarity(similarity):
    a = passage("w", 400)
    edits = [edit(a, *range(0, 390, step)) for step in (20, 40, 80, 390)]
    column = pa.array(list(sign([a, *edits], similarity)), tables.SIGNATURES.field("bands").type)
    hashes, sketches = read_bands(column, similarity)
    assert hashes.shape[1] * 0 + sketches.shape[1] >= 117
    estimate = estimate_similarity(sketches[[0] * 5], sketches)
    exact = [jaccard(a, text) for text in (a, *edits)]
    assert estimate[0] == 1
    assert np.abs(estimate - exact).max() < 0.15  # 3 standard errors
    shared = (hashes == hashes[0]).any(axis=1)
    assert shared[0]
    assert not shared[1]  # similarity 0.2


def test_the_smallest_estimate_is_a_standard_error_below_the_similarity():
    assert minimum_estimate(0.7) == pytest.approx(0.6592, abs=1e-4)
    assert minimum_estimate(1.0) == 1


def records(groups: list[int], sketch: int = 0) -> Records:
    """Return groups of these sizes, whose sketches are all equal to `sketch`."""
    bands = np.repeat(np.arange(len(groups)), groups).astype(np.uint64)
    sketches = np.full((len(bands), 126), sketch, np.uint8)
    return Records(bands, np.arange(len(bands)), sketches)


def pairs_of(whole: Records, sizes: list[int]) -> list[tuple[int, int]]:
    bounds = np.cumsum([0, *sizes]).tolist()
    batches = [whole.take(np.arange(first, end)) for first, end in pairwise(bounds)]
    found = list(verified_pairs(batches, 0.7))
    assert [count for count, _, _ in found] == sizes
    return sorted(
        (later, earlier)
        for _, of_later, of_earlier in found
        for later, earlier in zip(of_later.tolist(), of_earlier.tolist(), strict=True)
    )


def test_all_pairs_of_a_small_group_are_compared():
    whole = records([1, 3, 1, 2])
    assert pairs_of(whole, [7]) == [(2, 1), (3, 1), (3, 2), (6, 5)]
    assert pairs_of(whole, [2, 1, 0, 4]) == pairs_of(whole, [7])


@pytest.mark.parametrize("is_like_first", [True, False])
def test_a_large_group_costs_a_constant_per_document(is_like_first):
    """Documents are compared with the first ones and, if near to none, the previous ones."""
    whole = records([3, 60, 2])
    if not is_like_first:
        whole.sketches[3 : 3 + FIRST] = np.arange(1, FIRST + 1)[:, None]
    found = pairs_of(whole, [65])
    assert pairs_of(whole, [20, 1, 30, 14]) == pairs_of(whole, [1] * 65) == found
    of_last = [earlier for later, earlier in found if later == 62]
    first = 3 if is_like_first else 62 - PREVIOUS
    assert of_last == [*range(first, first + 8)]


@pytest.mark.parametrize(
    ("pairs", "dropped"),
    [
        ([], []),
        ([(2, 0)], [2]),
        ([(2, 0), (4, 3), (5, 2)], [2, 4]),
        ([(1, 0), (2, 1), (3, 2), (4, 3)], [1, 3]),
        ([(9, 0), (9, 1), (15, 9), (16, 9), (16, 15)], [9, 16]),
    ],
)
@pytest.mark.parametrize("batch", [1, 2, 100])
def test_documents_near_an_earlier_one_that_stays_are_dropped(pairs, dropped, batch):
    later, earlier = np.array(pairs, np.int64).reshape(-1, 2).T
    batches = [
        (later[first : first + batch], earlier[first : first + batch])
        for first in range(0, len(later), batch)
    ]
    found = [positions.tolist() for positions, _ in later_copies(batches, 17)]
    assert list(chain.from_iterable(found)) == dropped


def test_the_parts_have_the_pairs_and_the_size_that_is_planned(tmp_path):
    a = passage("w", 200)
    verdicts(tmp_path, [a, edit(a, 3)], [1, 1])
    sizes = [file.stat().st_size for file in tmp_path.glob("work/bands/*/records.bin")]
    assert bands_disk(2, BOTH) == {"bands": sum(sizes)} == {"bands": 2 * 14 * (8 + 8 + 126)}
    assert bands_disk(2, Dedup(tiers=("digest",))) == {}
    pairs = pq.read_table(tmp_path / "work" / "pairs" / "00000" / "pairs.parquet").to_pylist()
    assert {(row["later"], row["earlier"]) for row in pairs} == {(1, 0)}
