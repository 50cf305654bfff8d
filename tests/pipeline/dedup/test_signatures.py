import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from pipeline.config import Build, Dedup
from pipeline.dedup.signatures import BANDS, shingles, sign, sign_part
from pipeline.source.documents import Input, Shard
from pipeline.source.registry import corpus_source
from pipeline.source.stage import read_shard
from tests.helpers.parts import source_part
from tests.helpers.repository import CORPUS

# Checksum of the published hash functions, an array of shape (2, 128).
FUNCTIONS_SHA256 = "6a5665743fa1884640a8eb3543348255a90b4dbd55b093f39e3d61ac90eac9e1"
WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def config(similarity=0.7):
    return Dedup(tiers=["minhash"], similarity=similarity)


def test_shingles_are_thirteen_normalised_words():
    assert shingles("One, two; THREE four five six seven eight nine ten eleven twelve.") == []
    assert sorted(shingles(WORDS.title().replace(" ", "\n ") + "!")) == sorted(
        [WORDS.rpartition(" ")[0].encode(), WORDS.partition(" ")[2].encode()]
    )
    assert len(shingles("a " * 40)) == 1


def test_bands_are_minima_of_the_published_hash_functions():
    """The definition spelled out for one text of two shingles, with Python's own integers."""
    random = np.random.RandomState(42)
    functions = [
        (
            int(random.randint(1, 2**61 - 1, dtype=np.uint64)),
            int(random.randint(0, 2**61 - 1, dtype=np.uint64)),
        )
        for _ in range(128)
    ]
    assert (
        hashlib.sha256(np.array(functions, np.uint64).T.tobytes()).hexdigest() == FUNCTIONS_SHA256
    )
    hashes = [
        int.from_bytes(hashlib.sha1(shingle).digest()[:4], "little") for shingle in shingles(WORDS)
    ]
    values = [
        min(((h * a + b) % 2**64 % (2**61 - 1)) & (2**32 - 1) for h in hashes) for a, b in functions
    ]
    for similarity, (bands, rows) in BANDS.items():
        expected = [
            b"".join(v.to_bytes(4, "big") for v in values[i * rows : (i + 1) * rows])
            for i in range(bands)
        ]
        assert list(sign(["too short", WORDS], similarity)) == [None, expected]


def test_a_long_text_is_hashed_in_pieces_with_the_same_result(monkeypatch):
    text = " ".join(str(i) for i in range(1000))
    whole = list(sign([text], 0.9))
    monkeypatch.setattr("pipeline.dedup.signatures._CHUNK_SHINGLES", 7)
    assert list(sign([text], 0.9)) == whole


def test_sign_part_follows_the_rows_of_the_source(tmp_path):
    source = source_part(
        tmp_path / "source" / "a", ["short", WORDS, WORDS.upper(), WORDS.replace("one", "zero")]
    )
    part = sign_part(shard(tmp_path), source, tmp_path / "sign" / "a", config())
    table = pq.read_table(part.folder / "signatures.parquet")
    assert table.schema.equals(tables.SIGNATURES)
    none, first, upper, other = table["bands"].to_pylist()
    assert (none, len(first), len(first[0])) == (None, 14, 36)
    assert upper == first
    assert other != first
    assert part.account == type(part.account)(read=source.account.kept, kept=source.account.kept)


def test_only_the_similarity_and_the_source_make_new_signatures(tmp_path):
    source, other = (
        source_part(tmp_path / "source" / "a", [WORDS]),
        source_part(tmp_path / "source" / "b", [WORDS]),
    )
    first = sign_part(shard(tmp_path), source, tmp_path / "1", config()).fingerprint
    elsewhere = Dedup(tiers=["shipped"], cosine=0.9)
    assert sign_part(shard(tmp_path), source, tmp_path / "2", elsewhere).fingerprint == first
    assert sign_part(shard(tmp_path), source, tmp_path / "3", config(0.8)).fingerprint != first
    assert sign_part(shard(tmp_path), other, tmp_path / "4", config()).fingerprint != first


def shard(root, *files):
    return Shard(
        name="a", kind="rpv2", root=root, key="2023-06/0000/en_head", inputs=(), beside=files
    )


def shipped(root, similarity, rows):
    """A minhash file beside documents `a/0`, `a/1`, ...: bands by row."""
    path = "minhash/2023-06/0000/en_head.minhash.parquet"
    (root / path).parent.mkdir(parents=True)
    ids = [f"a/{row}" for row in rows]
    pq.write_table(
        pa.table(
            {
                "id": ids,
                f"signature_sim{similarity}": pa.array(list(rows.values()), pa.list_(pa.binary())),
            }
        ),
        root / path,
    )
    return Input(path=path, bytes=(root / path).stat().st_size)


def test_shipped_bands_are_used_and_missing_ones_computed(tmp_path):
    source = source_part(
        tmp_path / "source" / "a",
        ["short", WORDS, "words that ship another signature", WORDS.upper()],
    )
    bands = [b"%036d" % i for i in range(14)]
    file = shipped(
        tmp_path, 0.7, {2: bands, 0: None, 3: bands[::-1]}
    )  # in another order, and one is not there
    part = sign_part(shard(tmp_path, file), source, tmp_path / "sign" / "a", config())
    found = pq.read_table(part.folder / "signatures.parquet")["bands"].to_pylist()
    assert found == [None, next(sign([WORDS], 0.7)), bands, bands[::-1]]


def test_a_shipped_file_with_every_row(tmp_path):
    source = source_part(tmp_path / "source" / "a", ["short", WORDS])
    file = shipped(tmp_path, 1.0, {1: [b"x" * 512], 0: None})
    part = sign_part(shard(tmp_path, file), source, tmp_path / "sign" / "a", config(1.0))
    assert pq.read_table(part.folder / "signatures.parquet")["bands"].to_pylist() == [
        None,
        [b"x" * 512],
    ]
    assert (
        part.fingerprint
        != sign_part(shard(tmp_path), source, tmp_path / "none" / "a", config(1.0)).fingerprint
    )


@pytest.mark.parametrize("bands", [[b"x" * 36] * 13, [b"x" * 36] * 13 + [b"x" * 35]])
def test_bands_of_another_shape_are_ignored(tmp_path, caplog, bands):
    source = source_part(tmp_path / "source" / "a", [WORDS])
    part = sign_part(
        shard(tmp_path, shipped(tmp_path, 0.7, {0: bands})),
        source,
        tmp_path / "sign" / "a",
        config(),
    )
    assert pq.read_table(part.folder / "signatures.parquet")["bands"].to_pylist() == list(
        sign([WORDS], 0.7)
    )
    assert (
        "signature_sim0.7 is not 14 bands of 9 values; its documents' signatures are computed"
        in caplog.text
    )


@pytest.mark.parametrize("content", [b"", b"PAR1 no footer"])
def test_a_broken_signature_file_is_ignored(tmp_path, caplog, content):
    source = source_part(tmp_path / "source" / "a", [WORDS])
    file = shipped(tmp_path, 0.7, {})
    (tmp_path / file.path).write_bytes(content)
    part = sign_part(shard(tmp_path, file), source, tmp_path / "sign" / "a", config())
    assert pq.read_table(part.folder / "signatures.parquet")["bands"].to_pylist() == list(
        sign([WORDS], 0.7)
    )
    assert "its documents' signatures are computed" in caplog.text


def test_another_similarity_than_the_shipped_one_is_computed(tmp_path, caplog):
    source = source_part(tmp_path / "source" / "a", [WORDS])
    part = sign_part(
        shard(tmp_path, shipped(tmp_path, 0.7, {0: None})),
        source,
        tmp_path / "sign" / "a",
        config(0.9),
    )
    assert pq.read_table(part.folder / "signatures.parquet")["bands"].to_pylist() == list(
        sign([WORDS], 0.9)
    )


@pytest.mark.skipif(
    not (CORPUS / "documents").is_dir(), reason="the sample corpus is not beside this checkout"
)
def test_computed_bands_equal_the_shipped_ones(tmp_path):
    """This holds for each of a hundred documents, including short ones, at every similarity."""
    settings = Build(out=tmp_path, source={"kind": "rpv2", "path": CORPUS, "max_shards": 1})
    source = corpus_source(settings)
    [first] = source.plan().shards
    with pq.ParquetFile(
        read_shard(first, tmp_path / "source" / "a", source).folder / "documents.parquet"
    ) as file:
        batch = next(file.iter_batches(100, columns=["doc_id", "text"]))
    table = pq.read_table(CORPUS / "minhash" / f"{first.key}.minhash.parquet").slice(0, 100)
    assert table["id"].to_pylist() == batch["doc_id"].to_pylist()
    for similarity in BANDS:
        assert (
            list(sign(batch["text"].to_pylist(), similarity))
            == table[f"signature_sim{similarity}"].to_pylist()
        )
