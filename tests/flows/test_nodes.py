"""The options of torch's launcher on a machine whose name need not have an address."""

import socket

import pytest

from data_catalog import UserError
from flows.nodes import Nodes, launcher_options


def options(rdzv: str) -> set[str]:
    return set(launcher_options(Nodes(count="1:2", rdzv=rdzv)))


def own_address() -> str | None:
    """Return an address of this machine that is not loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of no machine; sends nothing
        except OSError:
            return None
        return str(probe.getsockname()[0])


def test_alone_there_is_no_place_to_meet() -> None:
    assert launcher_options(None) == ["--standalone"]


def test_this_machine_is_the_host_by_any_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PET_LOCAL_ADDR", raising=False)
    found = options("localhost:29500")
    assert "--rdzv-conf=is_host=true" in found
    assert not any(option.startswith("--local-addr") for option in found)
    if own := own_address():
        assert {"--rdzv-conf=is_host=true", f"--local-addr={own}"} <= options(f"{own}:29500")


def test_another_machine_is_reached_from_this_ones_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PET_LOCAL_ADDR", raising=False)
    if not (own := own_address()):
        pytest.skip("this machine has no network")
    other = "192.0.2.1:29500"
    assert {"--rdzv-conf=is_host=false", f"--local-addr={own}"} <= options(other)
    monkeypatch.setenv("PET_LOCAL_ADDR", "10.1.2.3")
    assert not any(option.startswith("--local-addr") for option in options(other))


def test_a_host_without_an_address_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"--rdzv nowhere\.invalid:29500: this machine finds no way"
    ):
        options("nowhere.invalid:29500")
