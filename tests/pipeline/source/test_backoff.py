import pytest

from pipeline.source.backoff import Patience, is_passing


def test_waits_double_up_to_a_limit_and_differ_by_key():
    patience = Patience(first_seconds=1, most_seconds=4)
    for failures, least, most in ((1, 0.5, 1), (2, 1, 2), (3, 2, 4), (4, 2, 4), (30, 2, 4)):
        assert all(least <= patience.seconds(failures, str(key)) <= most for key in range(100))
    assert len({patience.seconds(1, str(key)) for key in range(100)}) == 100


def test_a_server_that_asks_for_longer_is_given_it_within_reason():
    patience = Patience(first_seconds=1, most_asked_seconds=100)
    assert patience.seconds(1, "a", asked=20) == 20
    assert patience.seconds(1, "a", asked=1e9) == 100
    assert 0.5 <= patience.seconds(1, "a", asked=0) <= 1


class Answered(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


def caused(by: BaseException) -> BaseException:
    error = RuntimeError("wrapped")
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (caused(ConnectionError()), True),
        (FileNotFoundError(), False),
        (caused(PermissionError()), False),
        (ValueError(), False),
        (Answered(404), False),
    ],
)
def test_only_the_networks_trouble_passes(error, passing):
    assert is_passing(error) is passing


def test_a_clients_own_errors_pass_but_not_a_refusal():
    import httpx2

    request = httpx2.Request("GET", "http://a.example")
    assert is_passing(httpx2.ReadTimeout("slow", request=request))
    for status, passing in ((503, True), (429, True), (401, False)):
        answer = httpx2.HTTPStatusError(
            "no", request=request, response=httpx2.Response(status, request=request)
        )
        assert is_passing(answer) is passing
