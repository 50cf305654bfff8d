import threading

import pytest
import torch

from pipeline.threads import cores, in_threads, one_thread, pieces


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_results_come_in_the_order_of_the_items(workers):
    assert in_threads(lambda n: n * n, range(7), workers) == [0, 1, 4, 9, 16, 25, 36]
    assert in_threads(lambda n: n, [], workers) == []


def test_two_workers_run_at_the_same_time():
    both = threading.Barrier(2, timeout=20)
    assert len(in_threads(lambda _: both.wait(), range(2), 2)) == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_each_worker_has_one_thread_of_torch_and_the_callers_are_restored(workers, two_threads):
    assert in_threads(lambda _: torch.get_num_threads(), range(6), workers) == [1] * 6
    assert torch.get_num_threads() == 2
    assert in_threads(lambda _: torch.get_num_threads(), range(6), workers) == [1] * 6


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_is_raised_and_the_threads_are_restored(workers, two_threads):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda n: 1 // n, [1, 0], workers)
    assert torch.get_num_threads() == 2


def test_a_decorated_function_uses_one_thread(two_threads):
    @one_thread()
    def inside():
        with one_thread():
            return torch.get_num_threads()

    assert (inside(), torch.get_num_threads(), inside()) == (1, 2, 1)


def test_pieces_cover_all_rows_once():
    assert list(pieces(10, 4)) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert list(pieces(0, 4)) == []


def test_there_is_at_least_one_core():
    assert cores() >= 1
