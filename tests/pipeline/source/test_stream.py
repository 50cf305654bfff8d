import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import IterableDataset

from data_catalog.errors import UserError
from pipeline.config import Dataset
from pipeline.source import stream as module
from pipeline.source.backoff import Patience
from pipeline.source.stream import Stream, find_dataset, label_of, version_of

SOON = Patience(tries=3, first_seconds=0.001, most_seconds=0.002)


class Flaky:
    """Rows 0 to 29 of three shards; fails before the rows it is told to, once each."""

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
    monkeypatch.setattr(module, "_SNAPSHOT_ROWS", request.param)


def test_a_failing_network_repeats_and_loses_no_row(snapshots):
    flaky = Flaky(0, 7, 7, 10, 29)
    assert [row["i"] for row in Stream(flaky.open, patience=SOON)] == list(range(30))
    assert flaky.opened == 6


def test_a_position_is_plain_json_and_another_stream_goes_on_from_it(snapshots):
    for cut in (0, 1, 9, 10, 11, 29, 30):
        first = Stream(Flaky(5).open, patience=SOON)
        rows = iter(first)
        taken = [next(rows)["i"] for _ in range(cut)]
        position = json.loads(json.dumps(first.position()))
        assert taken + [row["i"] for row in Stream(Flaky().open, position)] == list(range(30))


def test_patience_ends_only_if_nothing_is_gained():
    assert len(list(Stream(Flaky(1, 2, 3, 4, 5).open, patience=SOON))) == 30
    with pytest.raises(ConnectionError, match="before row 5"):
        list(Stream(Flaky(5, 5, 5).open, patience=SOON))


def test_what_is_no_trouble_of_the_network_is_raised_at_once():
    flaky = Flaky(5, error=KeyError)
    with pytest.raises(KeyError):
        list(Stream(flaky.open, patience=SOON))
    assert flaky.opened == 1


def test_what_cannot_be_found_is_refused_by_its_field(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"content": "x"}\n')
    name = str(tmp_path)
    for source, sentence in (
        (Dataset(name=str(tmp_path / "gone")), r"source\.name .*gone: Couldn't find"),
        (Dataset(name="no/such"), r"source\.name no/such: .*check the name and the network"),
        (Dataset(name=name, split="tst"), r"source\.name .*: Bad split: tst"),
        (Dataset(name=name, subset="other"), r"source\.name .*: BuilderConfig 'other' not found"),
        (Dataset(name=name), r'source\.columns\.text: .* has no column "text"; it has content'),
    ):
        with pytest.raises(UserError, match=sentence):
            find_dataset(source, "source.name")
    find_dataset(Dataset(name=name, columns={"text": "content"}), "source.name")


def test_the_version_follows_the_files(tmp_path):
    source = Dataset(name=str(tmp_path))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    first = version_of(find_dataset(source, "n")[0], "train")
    assert version_of(find_dataset(source, "n")[0], "train") == first
    pq.write_table(pa.table({"text": ["b"]}), tmp_path / "b.parquet")
    assert version_of(find_dataset(source, "n")[0], "train") != first


def test_a_label_has_no_folders_of_this_machine(tmp_path):
    assert label_of(Dataset(name=str(tmp_path / ""))) == f"{tmp_path.name}/train"
    assert (
        label_of(Dataset(name="openai/gsm8k", subset="main", split="test"))
        == "openai/gsm8k/main/test"
    )
