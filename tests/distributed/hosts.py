"""Two hosts on one machine: network namespaces with names of their own, joined by a cable that can be pulled out."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = str(ROOT / "tools/train.py")
PORT = 29500
CABLE = "eth0"


@dataclass
class Host:
    """One of the two.

    Attributes:
        name: of its network namespace, and what its processes take for the name of their machine.
        address: of its end of the cable.
        processes: what was started on it.
    """

    name: str
    address: str
    processes: list[subprocess.Popen] = field(default_factory=list)

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        """A Python command on this host, on the CPU."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *named, sys.executable, "-W", "ignore", *words],
            env={**os.environ, **SETTINGS, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """End all that runs on it, at once, as when a machine fails."""
        for pid in _ip("netns", "pids", self.name).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def pull_out(self) -> None:
        """From here on the other host hears nothing any more, not even that it has heard the last."""
        _ip("-n", self.name, "link", "set", CABLE, "down")


SETTINGS = {
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "GLOO_SOCKET_IFNAME": CABLE,  # the names of these machines are known to nobody
}


@contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Two hosts that see each other and nothing else; they are gone afterwards, with all that runs on them.

    Skips where namespaces may not be made.
    """
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare"))):
        pytest.skip("two hosts need network namespaces: root, and the commands ip and unshare")
    token, subnet = secrets.token_hex(4), f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}"
    hosts = [Host(f"sslcollapse-{token}-{number}", f"{subnet}.{number + 1}") for number in range(2)]
    try:
        for host in hosts:
            made = _ip("netns", "add", host.name)
            if made.returncode:
                pytest.skip(f"no network namespace may be made here: {made.stderr.strip()}")
        first, second = hosts
        # Made inside of the two, so that nothing of it is ever seen on this machine.
        cable = _ip(
            *("-n", first.name, "link", "add", CABLE, "type", "veth"), *("peer", "name", CABLE, "netns", second.name)
        )
        if cable.returncode:
            pytest.skip(f"no pair of virtual network interfaces may be made here: {cable.stderr.strip()}")
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", CABLE, check=True)
            for interface in ("lo", CABLE):
                _ip("-n", host.name, "link", "set", interface, "up", check=True)
        yield hosts
    finally:
        for host in hosts:
            host.kill()
            for process in host.processes:
                process.kill()
                process.communicate()
            _ip("netns", "delete", host.name)


def launch(hosts: list[Host], *words: str, out: list[Path]) -> list[subprocess.Popen]:
    """``train`` on both hosts without a launcher, which would end a process for what another one did."""
    return [
        host.start(
            *(TRAIN, *words, "--out", str(folder)),
            RANK=str(rank),
            LOCAL_RANK="0",
            WORLD_SIZE="2",
            MASTER_ADDR=hosts[0].address,
            MASTER_PORT=str(PORT),
        )
        for rank, (host, folder) in enumerate(zip(hosts, out, strict=True))
    ]


def torchrun(hosts: list[Host], *words: str, out: list[Path]) -> list[subprocess.Popen]:
    """The same by ``torchrun``, as the guide has it."""
    return [
        host.start(
            *("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank)),
            *("--master-addr", hosts[0].address, "--master-port", str(PORT)),
            *(TRAIN, *words, "--out", str(folder)),
        )
        for rank, (host, folder) in enumerate(zip(hosts, out, strict=True))
    ]


def ended(processes: list[subprocess.Popen], seconds: float = 240.0) -> list[str]:
    """What each has said by its end."""
    until = time.monotonic() + seconds
    return ["".join(process.communicate(timeout=max(1.0, until - time.monotonic()))) for process in processes]


def _ip(*words: str, check: bool = False) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check)
