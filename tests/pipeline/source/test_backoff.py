import pytest

from pipeline.source.backoff import RetryPolicy, is_transient


def test_waits_double_up_to_a_limit_and_differ_by_key():
    policy = RetryPolicy(first_seconds=1, maximum_seconds=4)
    for failures, low, high in ((1, 0.5, 1), (2, 1, 2), (3, 2, 4), (4, 2, 4), (30, 2, 4)):
        assert all(low <= policy.seconds(failures, str(key)) <= high for key in range(100))
    assert len({policy.seconds(1, str(key)) for key in range(100)}) == 100


def test_a_longer_wait_that_a_server_asks_for_is_granted_up_to_a_limit():
    policy = RetryPolicy(first_seconds=1, maximum_requested_seconds=100)
    assert policy.seconds(1, "a", requested=20) == 20
    assert policy.seconds(1, "a", requested=1e9) == 100
    assert 0.5 <= policy.seconds(1, "a", requested=0) <= 1


class AnsweredError(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


def caused_by(cause: BaseException) -> BaseException:
    error = RuntimeError("wrapped")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (caused_by(ConnectionError()), True),
        (FileNotFoundError(), False),
        (caused_by(PermissionError()), False),
        (ValueError(), False),
        (AnsweredError(404), False),
    ],
)
def test_only_network_errors_are_transient(error, transient):
    assert is_transient(error) is transient


def test_errors_of_an_http_client_are_transient_but_refusals_are_not():
    import httpx2

    request = httpx2.Request("GET", "http://a.example")
    assert is_transient(httpx2.ReadTimeout("slow", request=request))
    for status, transient in ((503, True), (429, True), (401, False)):
        answer = httpx2.HTTPStatusError(
            "no", request=request, response=httpx2.Response(status, request=request)
        )
        assert is_transient(answer) is transient
