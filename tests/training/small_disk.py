"""Run in a mount namespace of its own, with a folder: train on a disk that is full or read-only, then go on there."""

import json
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import Process
from test_disk import RECIPE
from test_resume import learnt

folder = Path(sys.argv[1])
disk = folder / "small"


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def report(kind: str, process: Process, expected: dict) -> None:
    failed = process.wait(), process.said()
    if kind == "read-only":
        subprocess.run(["umount", str(process.run)], check=True)
    mount("-o", "remount,size=64m", str(disk))
    again = Process(RECIPE, process.run.parents[2], "--resume", shown=folder)
    print(json.dumps([kind, *failed, again.wait(), again.said()[-300:], learnt(process.run) == expected]), flush=True)


if __name__ == "__main__":  # and not in the processes of the fork server
    torch.set_num_threads(1)
    disk.mkdir()
    mount("-t", "tmpfs", "tmpfs", str(disk))
    straight = Process(RECIPE, folder)
    assert straight.wait() == 0, straight.said()
    expected = learnt(straight.run)
    for size in (4, 16, 48, 100):  # KiB
        mount("-o", f"remount,size={size}k", str(disk))
        (disk / str(size)).mkdir()
        report(f"full {size}", Process(RECIPE, disk / str(size), shown=folder), expected)
        subprocess.run(["rm", "-r", str(disk / str(size))], check=True)
    process = Process(RECIPE, disk, shown=folder)
    process.wait_for_steps(5)
    mount("-t", "tmpfs", "-o", "ro", "tmpfs", str(process.run))
    report("read-only", process, expected)
