"""Commands in a mount namespace of their own, where small file systems can be made without changing the machine."""

import subprocess

import pytest

SPACE = ["unshare", "-rm", "sh", "-c"]


def in_a_namespace(command: str) -> subprocess.CompletedProcess:
    """A shell command that may mount; skips where that is not permitted."""
    try:
        allowed = subprocess.run([*SPACE, "mount -t tmpfs tmpfs /dev/shm"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here, so that no small file system can be made")
    if allowed.returncode:
        pytest.skip(f"no mount namespace is permitted here: {allowed.stderr.strip()}")
    return subprocess.run([*SPACE, command], capture_output=True, text=True, timeout=300)
