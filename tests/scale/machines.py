"""Machines made of namespaces: each has an address, process ids from 1, and disks of its own.

They see this machine's software, read-only in effect, and nothing that another one writes: every
folder that is written to, also the home folder, is an empty disk in memory.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BRIDGE, NETWORK = "cmx0", "10.77.0"
HOST = f"{NETWORK}.1"  # address of this machine


@dataclass
class Machine:
    """One machine. It is on while a process that holds its namespaces runs."""

    name: str
    number: int
    """Number in the network, from 2."""
    private: Sequence[Path]
    """Folders of which it has an empty one of its own."""
    environment: Mapping[str, str]
    """Variables of its processes."""
    holder: subprocess.Popen[bytes] = field(init=False)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Processes that were started on it while it was on."""

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    def start(self) -> None:
        """Switch the machine on, with empty disks."""
        run("ip", "netns", "add", self.name)
        inner, outer = f"{self.name}i", f"{self.name}o"
        run("ip", "link", "add", inner, "type", "veth", "peer", "name", outer)
        run("ip", "link", "set", inner, "netns", self.name)
        run("ip", "link", "set", outer, "master", BRIDGE, "up")
        inside = ("ip", "-n", self.name)
        run(*inside, "addr", "add", f"{self.address}/24", "dev", inner)
        run(*inside, "link", "set", inner, "up")
        run(*inside, "link", "set", "lo", "up")
        mounts = " && ".join(
            f"mount -t tmpfs -o mode=1777 own {folder}" for folder in dict.fromkeys(self.private)
        )
        script = f"hostname {self.name} && {mounts} && echo ready && exec sleep infinity"
        self.holder = subprocess.Popen(
            [*self._entered(), "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork",
             "--kill-child", "--mount-proc", "bash", "-c", script],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.holder.stdout
        assert self.holder.stdout.readline() == b"ready\n"

    def _entered(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    @property
    def _first_process(self) -> str:
        """Id, on the host, of the process that has id 1 on the machine."""
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        return children.read_text().split()[0]

    def command(self, words: Sequence[str], folder: Path) -> list[str]:
        """Return the command of this host that runs `words` on the machine, in a folder of it."""
        entered = ["nsenter", "--target", self._first_process]
        entered += ["--mount", "--pid", "--uts", "--ipc", "--net"]
        return [*entered, "--", "bash", "-c", 'mkdir -p "$0" && cd "$0" && exec "$@"', str(folder),
                *words]  # fmt: skip

    def popen(self, words: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a process on the machine. Its output goes to a file of this host."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command(words, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self.environment, "HOME": str(self.private[0])},
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def kill(self, pattern: str) -> int:
        """Send SIGKILL to the machine's processes whose command line has a pattern."""
        done = subprocess.run(
            self.command(["pkill", "-KILL", "-f", pattern], Path("/")), check=False
        )
        return done.returncode

    def stop(self) -> None:
        """Switch the machine off at once, as a power failure does. Its disks are lost."""
        with suppress_missing():
            os.kill(int(self._first_process), signal.SIGKILL)
        for process in (self.holder, *self.processes):
            process.kill()
            process.wait()
        self.processes.clear()
        assert self.holder.stdout
        self.holder.stdout.close()
        self.remove_network()

    def remove_network(self) -> None:
        """Remove the machine's network, if there is one."""
        for words in (("netns", "del", self.name), ("link", "del", f"{self.name}o")):
            subprocess.run(["ip", *words], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def suppress_missing() -> Iterator[None]:
    """Ignore that a process has ended already."""
    try:
        yield
    except (ProcessLookupError, FileNotFoundError, IndexError):
        return


@contextmanager
def network() -> Iterator[None]:
    """Yield while there is a bridge that machines are connected to."""
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, stderr=subprocess.DEVNULL)
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "add", f"{HOST}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    try:
        yield
    finally:
        run("ip", "link", "del", BRIDGE)


@contextmanager
def machines(
    number: int, private: Sequence[Path], environment: Mapping[str, str]
) -> Iterator[list[Machine]]:
    """Yield some machines in one network, and switch them off at the end."""
    made = [Machine(f"cmx{i}", i + 2, private, environment) for i in range(number)]
    with network():
        try:
            for machine in made:
                machine.remove_network()  # of a test that was killed
                machine.start()
            yield made
        finally:
            for machine in made:
                if hasattr(machine, "holder"):
                    machine.stop()


def missing_permission() -> str:
    """Return why namespaces cannot be made here, or an empty string."""
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "nsenter", "pkill"))):
        return "needs root, iproute2, util-linux and procps"
    made = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False, capture_output=True
    )
    return "" if made.returncode == 0 else "namespaces are not permitted here"


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: It does not hold after the given time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.2)
