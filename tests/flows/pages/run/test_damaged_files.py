"""The run page of unfinished runs, damaged files and odd values."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from flows.pages.run import summary_table, write_report
from tests.helpers.page_text import data_of, words_of
from tests.helpers.tiny_run import write_catalog, write_run

TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], ["date"]]
HOSTILE = (
    "</script><img src=x onerror=alert(1)><!-- {{data}} \u202eABC \u05d0\u05d1 " + "long" * 100
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)


@pytest.mark.parametrize("losses", [(), (3.0,), (6.0, 4.0, 3.0, 2.5, 2.25, 2.0)])
@pytest.mark.parametrize("with_catalog", [False, True])
def test_an_unfinished_run_has_a_page(
    tmp_path: Path, catalog: Path, losses: tuple[float, ...], with_catalog: bool
) -> None:
    folder = write_run(tmp_path / "a", usage=None, losses=losses)
    data = data_of(write_report([folder], tmp_path / "r.html", catalog if with_catalog else None))
    assert (len(data["weights"]), data["domains"] is not None) == (1, with_catalog)
    for name in ("weights.parquet", "metrics.jsonl"):  # before the first update, the first record
        (folder / name).unlink()
        assert "No weights have been written yet" in words_of(
            write_report([folder], tmp_path / "r.html")
        )


FILES = (
    "metrics.jsonl",
    "weights.parquet",
    "usage.parquet",
    "weights.json",
    "accuracy.json",
    "fault.json",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00garbage\n", b'{"config": 3', b"[" * 100_000, b"PAR1"]
)
def test_a_damaged_file_is_reported_and_nothing_else_is_lost(
    tmp_path: Path, catalog: Path, name: str, content: bytes
) -> None:
    damaged, whole = write_run(tmp_path / "damaged"), write_run(tmp_path / "whole")
    (damaged / name).write_bytes(content)
    page = write_report([damaged, whole], tmp_path / "r.html", catalog)
    if not (
        name == "metrics.jsonl" and b"\n" not in content
    ):  # the last line may still be being written
        assert re.search(
            rf"damaged: [^.]*{re.escape(name)} (could not|and)|"
            rf"damaged: \d lines? of {name} could not",
            words_of(page),
        )
    assert [row["run"] for row in summary_table([damaged, whole])] == ["damaged", "whole"]
    assert "whole (mixer dga)" in words_of(page) or "and whole share" in words_of(page)
    assert data_of(page)["domains"]["runs"][-1] == 1


def test_tables_of_another_run_or_catalog_are_reported(tmp_path: Path, catalog: Path) -> None:
    folder = write_run(tmp_path / "a")
    (write_run(tmp_path / "b", basis=["natural"]) / "weights.parquet").replace(
        folder / "weights.parquet"
    )
    assert "found 1 weights per row, expected 3" in words_of(
        write_report([folder], tmp_path / "r.html")
    )
    pq.write_table(
        pa.table({"first_sequence": [0], "alpha": [[1.0] * 3], "sampling": [[float("nan")] * 3]}),
        folder / "weights.parquet",
    )
    assert "weights.parquet is not shown" in words_of(write_report([folder], tmp_path / "r.html"))
    pq.write_table(
        pa.table({"leaf": [0], "drawn_sequences": [-1], "sequences": [1]}), folder / "usage.parquet"
    )
    assert "usage.parquet is not shown" in words_of(
        write_report([folder], tmp_path / "r.html", catalog)
    )
    pq.write_table(
        pa.table({"leaf": [9], "drawn_sequences": [1], "sequences": [1]}), folder / "usage.parquet"
    )
    assert "a sampled from leaf 9, but this catalog has 4 leaves" in words_of(
        write_report([folder], tmp_path / "r.html", catalog)
    )


def test_a_damaged_catalog_is_refused_if_given_and_reported_otherwise(
    tmp_path: Path, catalog: Path
) -> None:
    folder = write_run(tmp_path / "a", catalog=catalog)
    (catalog / "versions" / "0001" / "domains.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"domains\.parquet"):
        write_report([folder], tmp_path / "r.html", catalog)
    assert "Domains are not shown." in words_of(write_report([folder], tmp_path / "r.html"))
