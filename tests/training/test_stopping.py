"""Signals: what they save, how a run ends, and that nothing of them is left afterwards."""

import json
import os
import signal
import threading
from functools import partial
from typing import Any, ClassVar

import pytest
import text_parts
from processes import Process
from test_resume import learnt
from tiny import tiny_recipe

from sslcollapse.core.errors import PreemptedError, SSLCollapseError
from sslcollapse.core.files import InUseError
from sslcollapse.core.registry import DOMAINS, ENCODERS
from sslcollapse.recipe import resolve
from sslcollapse.runs.directory import RunDirectory
from sslcollapse.training.checkpoint import newest_step
from sslcollapse.training.stopping import Stopped, StopSignals
from sslcollapse.training.trainer import train

RECIPE = tiny_recipe(
    "stopped",
    optim=dict(type="adamw", lr=1e-2),
    train=dict(steps=400, log_every=1),
    monitor=dict(every=150, samples=240),
    evaluate=dict(public=dict(type="logistic", split="public")),
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return train(RECIPE, out=tmp_path_factory.mktemp("straight"))


@pytest.fixture
def process(tmp_path):
    """A run under way."""
    made = Process(RECIPE, tmp_path)
    made.wait_for_steps(5)
    yield made
    if made.code is None:
        made.send(signal.SIGKILL)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT"])
def test_a_signal_saves_the_step_in_hand_and_the_resumed_run_is_as_if_nothing_was(name, process, straight, tmp_path):
    code, run = process.send(getattr(signal, name)), process.run
    said = process.said()
    assert code == (130 if name == "SIGINT" else 75), said
    step = newest_step(run / "checkpoints")
    assert step == process.steps() < 400  # nothing that was logged is lost
    assert f"stopped by {name} after step {step}, which is saved; --resume goes on from there" in said
    assert f"stopped by {name} after step {step}" in (run / "train.log").read_text()
    assert not (run / "result.json").exists()
    train(RECIPE, out=tmp_path, resume=True)
    assert learnt(run) == learnt(straight)


def test_a_second_run_of_the_same_is_told_who_has_it_and_nothing_is_written_twice(process, straight, tmp_path):
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InUseError, match=f"{process.run}: this run is in use by process {process.pid} on .* since"):
            train(RECIPE, out=tmp_path, **options)
    assert process.wait() == 0
    assert learnt(process.run) == learnt(straight)
    assert [path.name for path in process.run.parent.iterdir()] == ["seed0"]


def test_the_lock_of_a_killed_run_is_no_obstacle(process, straight, tmp_path):
    process.send(signal.SIGKILL)
    assert (process.run.parent / ".seed0.lock").exists()
    train(RECIPE, out=tmp_path, resume=True)
    assert learnt(process.run) == learnt(straight)


def test_what_refuses_a_run_leaves_no_lock_and_no_folder(tmp_path):
    wrong = {**RECIPE, "encoder": {"type": "gcn", "hidden": []}}
    with pytest.raises(SSLCollapseError):
        train(wrong, out=tmp_path / "runs")
    unlabelled = {**RECIPE, "domain": {**RECIPE["domain"], "dataset": dict(type="csbm", nodes=6, features=12)}}
    with pytest.raises(SSLCollapseError):
        train(unlabelled, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def interruptible():
    """Ctrl-C is not ignored, as it is in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_waits_while_it_is_held_and_raises_otherwise_and_a_second_interrupt_never_waits(capfd, interruptible):
    with StopSignals() as signals:
        with pytest.raises(Stopped, match="stopped by SIGTERM before the first step"):
            signal.raise_signal(signal.SIGTERM)
        signals.hold()
        assert signals.caught is None
        signal.raise_signal(signal.SIGINT)
        assert signals.caught == signal.SIGINT
        assert "saving after this step; a second Ctrl-C stops at once" in capfd.readouterr().err
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT after the last step"):
            signals.release("after the last step")
        with pytest.raises(Stopped, match="stopped by SIGUSR1 after the last step") as caught:
            signal.raise_signal(signal.SIGUSR1)
        assert caught.value.number == signal.SIGUSR1


def test_handlers_are_put_back_and_those_of_a_program_are_left_to_it(tmp_path):
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        with StopSignals() as signals:
            signals.hold()
            signal.raise_signal(signal.SIGUSR1)
            assert signals.caught is None
            assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    finally:
        signal.signal(signal.SIGUSR1, before[signal.SIGUSR1])
    assert seen == [1]
    train({**RECIPE, "train": dict(steps=2)}, out=tmp_path)
    assert {number: signal.getsignal(number) for number in numbers} == before


def test_a_run_outside_the_main_thread_catches_no_signals_and_trains(tmp_path):
    made = []
    thread = threading.Thread(target=lambda: made.append(train({**RECIPE, "train": dict(steps=2)}, out=tmp_path)))
    thread.start()
    thread.join()
    assert (made[0] / "result.json").exists()


class Killed(text_parts.BagOfWords):
    """Sends its process SIGTERM where it is built for the first time, or after it was trained."""

    kills: ClassVar[list[str]] = []
    trained = False

    def __init__(self, in_shape: Any) -> None:
        super().__init__(in_shape)
        if any(Killed.trained == when.startswith("after") for when in Killed.kills):
            Killed.kills.clear()
            os.kill(os.getpid(), signal.SIGTERM)

    def forward(self, view: Any) -> Any:
        Killed.trained |= self.training
        return super().forward(view)


def register_killed(when: str) -> None:
    text_parts.register()
    ENCODERS.register("killed")(Killed)
    Killed.kills[:] = [when] if when else []


@pytest.mark.parametrize(
    "when", ["before the first step", "after the last step, which is saved; --resume evaluates it"]
)
def test_a_signal_in_a_components_constructor_is_no_fault_of_the_component(when, tmp_path, own_components):
    register_killed("")
    recipe = text_parts.text_recipe("killed", encoder=dict(type="killed"))
    killed = Process(recipe, tmp_path, first=partial(register_killed, when))
    assert killed.wait() == 75, killed.said()
    assert killed.said().splitlines()[-1] == f"stopped by SIGTERM {when}"
    assert killed.run.exists() == when.startswith("after")
    assert (train(recipe, out=tmp_path, resume=True) / "result.json").exists()


def test_a_signal_while_what_two_views_share_is_measured_leaves_the_measurement_to_resume(tmp_path, own_components):
    text_parts.register()
    kills = ["once"]

    @DOMAINS.register("killed_text")
    class KilledText(text_parts.TextDomain):
        def measurable(self, view: Any) -> None:
            if kills:
                kills.clear()
                os.kill(os.getpid(), signal.SIGTERM)

    recipe = text_parts.text_recipe("killed", domain=dict(type="killed_text"))
    with pytest.raises(PreemptedError, match=r"stopped by SIGTERM after the last step.*--resume evaluates it"):
        train(recipe, out=tmp_path)
    assert not kills
    assert (RunDirectory.of(resolve(recipe), tmp_path).path / "result.json").exists()  # nothing that was made is lost
    result = json.loads((train(recipe, out=tmp_path, resume=True) / "result.json").read_text())
    assert (result["status"], result["warnings"]) == ("finished", [])
    assert result["rank"]["shared"]["attainable"] == 8
