"""Sequences of a catalog on an S3 server are those of the local catalog, whatever fails."""

import os
import re
import shutil

import numpy as np
import pytest

from data_catalog.errors import UserError
from data_catalog.format.files import open_files
from data_catalog.format.tokens import open_tokens
from data_catalog.place import Place
from data_catalog.transfer import ranges
from data_catalog.transfer.copy import export_catalog
from data_catalog.transfer.mirror import open_catalog
from tests.helpers.object_store import serving_objects
from tests.helpers.stored_catalog import write_whole_catalog

LENGTH = 64
CACHE = 10**7


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A store with a catalog, its URL, and the folder it was exported from."""
    folder = write_whole_catalog(tmp_path_factory.mktemp("served") / "catalog", document_tokens=500)
    with serving_objects() as store:
        export_catalog(folder, "s3://corpora/catalog")
        yield store, Place("s3://corpora/catalog"), folder


@pytest.fixture
def remote(served, tmp_path, monkeypatch):
    """The store without faults and with an empty local cache, and the catalog's URL and folder."""
    store, place, folder = served
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store.refused = store.cut_every = store.slow_every = 0
    store.requests.clear()
    return store, place, folder


def opened(place, cache=CACHE, split="train"):
    return open_tokens(open_catalog(place, None, LENGTH, cache), split)


def local(folder, split="train"):
    return open_tokens(open_files(folder, None, LENGTH), split)


def draws(store, count, seed=0):
    random = np.random.default_rng(seed)
    sequences = store.sequences(LENGTH)
    leaves = random.choice(len(sequences), count, p=sequences / sequences.sum())
    return leaves, (random.random(count) * sequences[leaves]).astype(np.int64)


def read_in_batches(store, leaves, rows, batch=16):
    store.expect(leaves, rows, LENGTH)
    for first in range(0, len(leaves), batch):
        part = slice(first, first + batch)
        yield from np.stack(store.read(leaves[part], rows[part], LENGTH), 1)


def read_all(store, leaves, rows):
    return np.stack(list(read_in_batches(store, leaves, rows)))


def token_bytes(store):
    """Bytes of token files that were asked for."""
    asked = [wanted for _, path, wanted in store.requests if "/tokens/" in path]
    bounds = (re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups() for wanted in asked)
    return sum(int(last) - int(first) + 1 for first, last in bounds)


@pytest.mark.parametrize("count", [300, 3000])
def test_sequences_are_equal_and_hardly_more_is_read_than_they_need(remote, count):
    store, place, folder = remote
    here = local(folder)
    leaves, rows = draws(here, count)
    tokens = opened(place)
    np.testing.assert_array_equal(
        read_all(tokens, leaves, rows), np.stack(here.read(leaves, rows, LENGTH), 1)
    )
    distinct = np.unique(np.stack([leaves, rows]), axis=1)
    needed = 2 * int((here.targets(*distinct, LENGTH) + 1).sum())
    assert token_bytes(store) <= 1.2 * needed


def test_faults_of_the_store_change_nothing(remote):
    store, place, folder = remote
    here = local(folder)
    leaves, rows = draws(here, 40)
    store.refused, store.cut_every, store.slow_every = 2, 4, 7
    np.testing.assert_array_equal(
        read_all(opened(place), leaves, rows), np.stack(here.read(leaves, rows, LENGTH), 1)
    )
    assert store.refusals > 10
    assert store.cuts > 0


def test_the_cache_is_bounded(remote, tmp_path):
    _, place, folder = remote
    here = local(folder)
    leaves, rows = draws(here, 400)
    np.testing.assert_array_equal(
        read_all(opened(place, 20_000), leaves, rows), np.stack(here.read(leaves, rows, LENGTH), 1)
    )
    files = list((tmp_path / "cache").rglob("train-*"))
    assert len(files) == 2
    assert sum(file.stat().st_size for file in files) <= 20_000


@pytest.mark.parametrize("loss", ["removed", "emptied", "zeroed"])
def test_a_lost_cache_is_filled_again(remote, tmp_path, loss):
    store, place, folder = remote
    here = local(folder)
    leaves, rows = draws(here, 200)
    twice = np.tile(leaves, 2), np.tile(rows, 2)
    found = []
    for number, sequence in enumerate(read_in_batches(opened(place), *twice)):
        found.append(sequence)
        if number == 210:
            for file in (tmp_path / "cache").rglob("train-*"):
                size = file.stat().st_size
                if loss == "zeroed":
                    with file.open("r+b") as opened_file:
                        opened_file.write(bytes(size))
                elif loss == "emptied":
                    os.truncate(file, 0)
            if loss == "removed":
                shutil.rmtree(tmp_path / "cache")
            store.requests.clear()
    np.testing.assert_array_equal(np.stack(found), np.stack(here.read(*twice, LENGTH), 1))
    assert bool(token_bytes(store)) == (loss != "removed")  # open files outlive their names


def test_sequences_are_kept_for_the_next_run(remote):
    store, place, folder = remote
    leaves, rows = draws(local(folder), 100)
    first = opened(place)
    expected = read_all(first, leaves, rows)
    first.remote._records.close()  # as the end of the process does
    store.requests.clear()
    np.testing.assert_array_equal(read_all(opened(place), leaves, rows), expected)
    asked = {wanted for _, path, wanted in store.requests if "/tokens/" in path}
    assert asked == {"bytes=0-511"}  # the heads, which say which version of an object this is


def test_a_replaced_object_is_refused(remote, tmp_path):
    _, _, folder = remote
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    other = Place("s3://corpora/replaced")
    export_catalog(copy, other.url)
    tokens = opened(other)
    leaves, rows = draws(tokens, 50)
    tokens.read(leaves[:5], rows[:5], LENGTH)
    for file in copy.glob("tokens/*/*.arrow"):
        (other / file.relative_to(copy)).write(file.read_bytes()[::-1])
    with pytest.raises(UserError, match="replaced"):
        tokens.read(leaves[5:], rows[5:], LENGTH)
    for file in copy.glob("tokens/*/*.arrow"):
        (other / file.relative_to(copy)).write(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="expected"):
        read_all(opened(other), leaves, rows)


def test_a_store_that_is_down_is_one_sentence_and_reading_goes_on_later(remote, monkeypatch):
    store, place, folder = remote
    here = local(folder)
    leaves, rows = draws(here, 80)
    tokens = opened(place)
    tokens.read(leaves[:1], rows[:1], LENGTH)
    monkeypatch.setattr(ranges, "PATIENCE_SECONDS", 0.5)
    store.refused = 3
    with pytest.raises(UserError, match="access failed"):
        read_all(tokens, leaves, rows)
    store.refused = 0
    np.testing.assert_array_equal(
        read_all(tokens, leaves, rows), np.stack(here.read(leaves, rows, LENGTH), 1)
    )


def test_small_files_are_copied_once_and_token_files_never(remote):
    store, place, folder = remote
    files = open_catalog(place, None, LENGTH, CACHE)
    assert files.manifest.fingerprint == open_files(folder).manifest.fingerprint
    assert files.root != folder
    assert not (files.root / "tokens").exists()
    asked = len(store.requests)
    (files.layout.offsets).unlink()  # emptied between two runs
    open_catalog(place, None, LENGTH, CACHE)
    store.requests.clear()
    open_catalog(place, None, LENGTH, CACHE)
    assert {path for _, path, _ in store.requests} == {"/corpora/catalog/catalog.json"}
    assert asked > 1


def test_other_stores_are_read_without_versions(remote):
    _, _, folder = remote
    place = Place("memory://stored/catalog")
    export_catalog(folder, place.url)
    here = local(folder, "heldout")
    leaves, rows = draws(here, 50)
    np.testing.assert_array_equal(
        read_all(opened(place, split="heldout"), leaves, rows),
        np.stack(here.read(leaves, rows, LENGTH), 1),
    )
