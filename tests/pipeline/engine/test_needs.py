"""The resources of parts, the order in which parts start, and the addresses of clusters."""

import pytest

from data_catalog.errors import UserError
from data_catalog.format.accounts import Account, Tally
from data_catalog.settings import parse
from pipeline.engine.config import Cluster
from pipeline.engine.needs import Machine, Needs, largest_first, stage_needs
from pipeline.parts import Part
from pipeline.source.documents import Input, Shard

GIGABYTE = 2**30
CPU = Machine(cpus=8, gpus=0, memory=4 * GIGABYTE)
GPU = Machine(cpus=4, gpus=2, memory=16 * GIGABYTE)


def part(folder, characters):
    tally = Tally(rows=1, characters=characters)
    return Part(folder, "f", Account(read=tally, kept=tally), 0.0)


def shard(name, *sizes):
    inputs = tuple(Input(path=f"{name}-{i}", bytes=size) for i, size in enumerate(sizes))
    return Shard(name=name, kind="text", root="/corpus", key=name, inputs=inputs)


@pytest.mark.parametrize(
    ("stage", "parts", "machines", "needs"),
    [
        ("quality", 100, [CPU, GPU], Needs()),
        ("embed", 100, [CPU, GPU], Needs(gpu=True)),
        ("embed", 100, [CPU], Needs()),
        ("tree", 1, [CPU, GPU], Needs(cpus=8, gpu=True)),
        ("dedup", 1, [CPU, GPU], Needs(cpus=8, memory=6 * GIGABYTE)),
        ("dedup", 1, [CPU], Needs(cpus=8, memory=4 * GIGABYTE)),  # no machine has more
        ("quality", 1, [], Needs()),  # no machine has joined yet
    ],
)
def test_needs_of_a_stage(stage, parts, machines, needs):
    assert stage_needs(stage, parts, machines, {"dedup": 6 * 1_024}) == needs


def test_large_parts_start_first_and_shared_arguments_do_not_count(tmp_path):
    verdicts = part(tmp_path, 10**9)
    calls = [(part(tmp_path, size), verdicts, tmp_path) for size in (5, 7, 7, 9)]
    assert largest_first(calls) == [3, 1, 2, 0]
    calls = [(shard("a", 1, 1), tmp_path), (shard("b", 3), tmp_path), (shard("c"), tmp_path)]
    assert largest_first(calls) == [1, 0, 2]


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("local", None),
        ("ray://head:10001", ("head", 10001)),
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("[fd00::1]:6379", ("fd00::1", 6379)),
    ],
)
def test_addresses(address, endpoint):
    assert parse(Cluster, {"address": address}, "test").endpoint() == endpoint


@pytest.mark.parametrize("address", ["head", "tcp://head:8786", "ray://head", "head:port", ""])
def test_other_addresses_are_refused(address):
    with pytest.raises(UserError, match="address"):
        parse(Cluster, {"address": address}, "test")
