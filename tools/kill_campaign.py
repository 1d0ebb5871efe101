"""Kill a run of two processes at random moments, resume it each time, and compare it with one that ran through.

python tools/kill_campaign.py --kills 100 --terms 20

The processes are forked from this one, which has imported the package, so that a cycle costs a second and not ten;
they find each other over gloo, as processes of torchrun do. Killed are rank 0, rank 1 or both; of a rank that is left
alone, what a launcher does is done: SIGTERM, then SIGKILL. The exit code is 1 if anything differs: the encoder's
bytes, the metrics, the spectra, or the result, timings apart.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# The repository instead of this folder, so that a clone needs no installation and no tool hides a package.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

RANKS = 2
ALONE_SECONDS = 10.0
"""How long a rank may take to notice that the other one is gone, before it is killed."""
PATIENCE_SECONDS = 120.0
STOPPED = 75

RECIPE: dict[str, Any] = dict(
    name="campaign",
    domain=dict(
        type="graph",
        dataset=dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5),
        views=dict(strength=0.2),
    ),
    encoder=dict(type="gcn", hidden=[16, 8]),
    objective=dict(type="bgrl", predictor_hidden=7),
    regularizers=dict(
        werank=dict(type="werank", coefficient=dict(type="schedule", base=1e-2, start=30)),
        variance=dict(type="variance", on=["representation"], coefficient=0.1),
    ),
    optim=dict(type="adamw", lr=1e-2, warmup_steps=5),
    train=dict(steps=80, log_every=3, checkpoint_every=30, checkpoint_minutes=0.002),
    monitor=dict(every=25, samples=240),
    evaluate=dict(public=dict(type="logistic", split="public")),
)


class Group:
    """The processes of one start of the run, all of which write to one log."""

    def __init__(self, recipe: Path, out: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.codes: dict[int, int] = {}
        self.pids = [self._start(rank, port, recipe, out, log) for rank in range(RANKS)]

    @staticmethod
    def _start(rank: int, port: int, recipe: Path, out: Path, log: Path) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            words = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_WORLD_SIZE": RANKS}
            os.environ.update({name: str(value) for name, value in words.items()})
            os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
            descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            for target in (1, 2):
                os.dup2(descriptor, target)
            from accelerate.state import AcceleratorState

            from sslcollapse import cli

            AcceleratorState._reset_state(reset_partial_state=True)  # of a run that this process has made itself
            code = 1
            code = cli.main(["train", str(recipe), "--out", str(out), "--resume"])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def running(self) -> list[int]:
        """Ranks that have not ended."""
        for rank, pid in enumerate(self.pids):
            if rank not in self.codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self.codes[rank] = os.waitstatus_to_exitcode(status)
        return [rank for rank in range(RANKS) if rank not in self.codes]

    def wait(self, seconds: float) -> bool:
        """Wait until all have ended, for so many seconds at most; whether they have."""
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self.running()

    def send(self, number: int, ranks: list[int]) -> None:
        """Send a signal to those of the ranks that have not ended."""
        for rank in set(ranks) & set(self.running()):
            os.kill(self.pids[rank], number)

    def end(self) -> None:
        """Wait for all; where one has failed, end the others as a launcher does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.running() and not any(self.codes.values()) and time.monotonic() < deadline:
            time.sleep(0.005)
        if not self.wait(0.5):
            self.send(signal.SIGTERM, self.running())
            if not self.wait(ALONE_SECONDS):
                self.send(signal.SIGKILL, self.running())
                self.wait(PATIENCE_SECONDS)


def outcome(run: Path) -> dict[str, Any]:
    """All that a run has learnt and measured, without its timings."""
    result = json.loads((run / "result.json").read_text())
    del result["seconds"]
    return {
        "encoder": (run / "encoder.safetensors").read_bytes(),
        "result": result,
        "metrics": (run / "metrics.jsonl").read_bytes(),
        "spectra": {path.name: path.read_bytes() for path in sorted((run / "spectra").iterdir())},
        "left behind": sorted(str(path.relative_to(run)) for path in run.rglob(".*")),
    }


def newest_step(run: Path) -> int:
    """Of the newest checkpoint; 0 where there is none."""
    return max((int(path.stem.removeprefix("step")) for path in run.glob("checkpoints/step*.pt")), default=0)


def length(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def saved_as_said(run: Path, before: int) -> bool:
    """Whether the step that the log says is saved is the one of the newest checkpoint, and no metric is later."""
    log = (run / "train.log").read_bytes()[before:].decode() if length(run / "train.log") else ""
    said = re.findall(r"stopped by \w+ after (?:step (\d+)|the last step), which is saved", log)
    steps = [int(step or RECIPE["train"]["steps"]) for step in said]
    metrics = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] if steps else []
    return not steps or (steps[-1] == newest_step(run) and max(metrics) <= steps[-1])


class Campaign:
    """So many signals at random moments, over as many runs as they need."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)
        self.recipe = folder / "campaign.json"
        self.recipe.write_text(json.dumps(RECIPE))
        self.faults: list[str] = []

    def straight(self) -> None:
        """Run through once, to compare with, and a second time to know how long it takes."""
        for name in ("straight", "again"):
            began = time.monotonic()
            group = Group(self.recipe, self.folder / name, self.folder / f"{name}.log")
            group.end()
            self.seconds = time.monotonic() - began
            if set(group.codes.values()) != {0}:
                sys.exit(f"the run failed without any kill: {(self.folder / f'{name}.log').read_text()}")
        self.expected = outcome(self.find("straight"))
        self.compare("again")
        shutil.rmtree(self.folder / "again")

    def find(self, name: str) -> Path:
        """The run directory below a folder; one that does not exist before there is one."""
        return next(self.folder.joinpath(name).glob("campaign/*/seed0"), self.folder / name / "none")

    def run(self, signals: list[int]) -> None:
        """Send the signals, in this order, to one run after another."""
        episode = 0
        while signals:
            episode += 1
            name, sent = f"run{episode}", 0
            while self.cycle(name, signals):  # until it ends by itself
                sent += 1
            found = self.compare(name)
            print(f"{name}: finished after {sent} signals, {'identical' if not found else 'DIFFERENT: ' + found}")
            if not found:
                shutil.rmtree(self.folder / name)

    def cycle(self, name: str, signals: list[int]) -> bool:
        """Start or resume the run and send the next signal, if there is one; whether it met the run."""
        run, log = self.find(name), self.folder / f"{name}.log"
        logged = length(run / "train.log")
        group = Group(self.recipe, self.folder / name, log)
        victims = self.draw.choice([[0], [1], [0, 1]])
        left = 1.0 - 0.4 * newest_step(run) / RECIPE["train"]["steps"]  # evaluation is part of what is left
        moment = self.draw.uniform(0.0, left * self.seconds) if signals else PATIENCE_SECONDS
        began = time.monotonic()
        if group.wait(moment):
            if signals:  # the machine has become faster
                self.seconds = min(self.seconds, (time.monotonic() - began) / left)
            if set(group.codes.values()) != {0}:
                self.faults.append(f"{name}: exit codes {group.codes} without a signal; see {log}")
                sys.exit(self.faults[-1])
            return False
        number = signals.pop(0)
        group.send(number, victims)
        group.end()
        run, word = self.find(name), signal.Signals(number).name
        codes = [group.codes.get(rank) for rank in range(RANKS)]
        # A rank that is on its way out when the launcher ends it shows that; then the other one must have answered.
        answered = length(run / "train.log") == logged or any(code in (0, STOPPED) for code in codes)
        right = number == signal.SIGKILL or (answered and saved_as_said(run, logged))
        print(
            f"{name}: {word} to {victims} after {moment:5.2f} s, newest checkpoint {newest_step(run):3}, "
            f"exit codes {codes}{'' if right else '  WRONG'}",
            flush=True,
        )
        if not right:
            self.faults.append(f"{name}: {word} to {victims}: exit codes {codes}, or steps lost; see {log}")
        return True

    def compare(self, name: str) -> str:
        """What differs from the run that ran through, in words; nothing if all is the same."""
        found = outcome(self.find(name))
        different = ", ".join(key for key in found if found[key] != self.expected[key])
        if different:
            self.faults.append(f"{name}: different: {different}; kept in {self.folder / name}")
        return different


def main() -> int:
    """Run the campaign, print its table, and say whether all was the same."""
    parser = argparse.ArgumentParser(prog="kill_campaign.py", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="SIGKILLs (default: 100)")
    parser.add_argument("--terms", type=int, default=20, metavar="N", help="SIGTERMs (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="of the moments (default: 0)")
    options = parser.parse_args()
    os.environ.update({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})

    import scipy.stats  # noqa: F401
    import torch
    import torch._dynamo

    import sslcollapse.training.trainer  # noqa: F401 - what the processes are forked with
    from sslcollapse.recipe import resolve
    from sslcollapse.training.build import build_domain, build_module

    recipe = resolve(RECIPE)  # and the components that it names
    build_module(recipe, build_domain(recipe))
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="kill_campaign."))
    began = time.monotonic()
    campaign = Campaign(folder, options.seed)
    campaign.straight()
    signals = [signal.SIGKILL] * options.kills + [signal.SIGTERM] * options.terms
    campaign.draw.shuffle(signals)
    print(f"{len(signals)} signals within the {campaign.seconds:.1f} s of a run")
    campaign.run(signals)
    print(f"{options.kills} SIGKILL, {options.terms} SIGTERM in {time.monotonic() - began:.0f} s: ", end="")
    print("nothing lost" if not campaign.faults else "\n".join([f"{len(campaign.faults)} faults", *campaign.faults]))
    if not campaign.faults:
        shutil.rmtree(folder)
    return int(bool(campaign.faults))


if __name__ == "__main__":
    sys.exit(main())
