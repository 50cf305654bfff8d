import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import IterableDataset

from data_catalog.errors import UserError
from pipeline.source import stream
from pipeline.source.backoff import RetryPolicy
from pipeline.source.config import Dataset
from pipeline.source.stream import Stream, dataset_label, dataset_version, find_dataset

QUICKLY = RetryPolicy(attempts=3, first_seconds=0.001, maximum_seconds=0.002)


class FlakyDataset:
    """Rows 0 to 29 of three shards. Reading fails once before each row in `fails`."""

    def __init__(self, *fails: int, error: type[Exception] = ConnectionError) -> None:
        self.fails, self.error, self.opened = list(fails), error, 0

    def open(self) -> IterableDataset:
        self.opened += 1
        return IterableDataset.from_generator(self.rows, gen_kwargs={"starts": [0, 10, 20]})

    def rows(self, starts):
        for start in starts:
            for i in range(start, start + 10):
                if self.fails and self.fails[0] == i:
                    self.fails.pop(0)
                    raise self.error(f"before row {i}")
                yield {"i": i}


@pytest.fixture(params=[1, 4, 1_000])
def snapshots(request, monkeypatch):
    monkeypatch.setattr(stream, "_SNAPSHOT_ROWS", request.param)


def test_a_failing_network_repeats_and_loses_no_row(snapshots):
    flaky = FlakyDataset(0, 7, 7, 10, 29)
    assert [row["i"] for row in Stream(flaky.open, retries=QUICKLY)] == list(range(30))
    assert flaky.opened == 6


def test_a_position_is_plain_json_that_another_stream_resumes_from(snapshots):
    for cut in (0, 1, 9, 10, 11, 29, 30):
        first = Stream(FlakyDataset(5).open, retries=QUICKLY)
        rows = iter(first)
        taken = [next(rows)["i"] for _ in range(cut)]
        position = json.loads(json.dumps(first.position()))
        assert taken + [row["i"] for row in Stream(FlakyDataset().open, position)] == list(
            range(30)
        )


def test_only_failures_without_a_new_row_use_up_the_retries():
    assert len(list(Stream(FlakyDataset(1, 2, 3, 4, 5).open, retries=QUICKLY))) == 30
    with pytest.raises(ConnectionError, match="before row 5"):
        list(Stream(FlakyDataset(5, 5, 5).open, retries=QUICKLY))


def test_an_error_that_is_not_of_the_network_is_raised_at_once():
    flaky = FlakyDataset(5, error=KeyError)
    with pytest.raises(KeyError):
        list(Stream(flaky.open, retries=QUICKLY))
    assert flaky.opened == 1


def test_a_dataset_that_cannot_be_found_is_refused_by_its_key(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"content": "x"}\n')
    name = str(tmp_path)
    for source, message in (
        (Dataset(name=str(tmp_path / "gone")), r"source\.name .*gone: "),
        (Dataset(name="no/such"), r"source\.name no/such: .*network"),
        (Dataset(name=name, split="tst"), r"source\.name .*tst"),
        (Dataset(name=name, subset="other"), r"source\.name .*'other'"),
        (Dataset(name=name), r'source\.columns\.text: .*"text".* content'),
    ):
        with pytest.raises(UserError, match=message):
            find_dataset(source, "source.name")
    find_dataset(Dataset(name=name, columns={"text": "content"}), "source.name")


def test_the_version_follows_the_files(tmp_path):
    source = Dataset(name=str(tmp_path))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    first = dataset_version(find_dataset(source, "n")[0], "train")
    assert dataset_version(find_dataset(source, "n")[0], "train") == first
    pq.write_table(pa.table({"text": ["b"]}), tmp_path / "b.parquet")
    assert dataset_version(find_dataset(source, "n")[0], "train") != first


def test_a_label_has_no_folders_of_this_machine(tmp_path):
    assert dataset_label(Dataset(name=str(tmp_path / ""))) == f"{tmp_path.name}/train"
    assert (
        dataset_label(Dataset(name="openai/gsm8k", subset="main", split="test"))
        == "openai/gsm8k/main/test"
    )
