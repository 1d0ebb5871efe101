"""When an alarm is raised, what it says, and what a monitor does about it."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from sslcollapse import CollapseAlarm, CollapsedError, CollapseMonitor
from sslcollapse.rank.record import LayerRank


def row(rank, layer="0", kind="output", reachable=10, step=0):
    """A row of that effective rank."""
    blank = {field.name: 0 for field in dataclasses.fields(LayerRank)}
    said = dict(step=step, layer=layer, kind=kind, effective_rank=float(rank), reachable=reachable)
    return LayerRank(**(blank | said))


def told(alarm, ranks, start=1):
    """Steps at which a course of ranks raises the alarm."""
    return [step for step, rank in enumerate(ranks, start) if alarm.observe(step, [row(rank)]) is not None]


def test_a_layer_has_collapsed_when_it_was_low_so_often_in_a_row_and_is_told_once_until_it_is_back():
    assert told(CollapseAlarm(0.5, 3), [9, 4, 4, 9, 4, 4, 4, 4, 4]) == [7]
    assert told(CollapseAlarm(0.5, 1), [9, 4, 4, 5, 4]) == [2, 5]  # half of 10 is not below half of 10
    assert told(CollapseAlarm(0.5, 2), [4, float("nan"), 4]) == [3]  # what is not finite says nothing


def test_an_untrained_network_cannot_have_fallen():
    alarm = CollapseAlarm(0.5, 1)
    assert alarm.observe(0, [row(1)], untrained=True) is None
    found = alarm.observe(1, [row(1)])
    assert found.first.ranks == ((0, 1.0), (1, 1.0))
    assert (found.first.since, found.healthy_step) == (1, None)
    assert "since step 1, 1.0 at step 0, where it was low already, so that `below` may be too high" in str(found)


def test_the_first_to_fall_stands_first_with_its_course_and_spectra():
    alarm = CollapseAlarm(0.5, 2)
    courses = {"deep": [9, 3, 2], "shallow": [9, 9, 2]}
    for step in range(3):
        rows = [row(courses[name][step], name) for name in ("shallow", "deep")]
        spectra = {"output/deep": torch.tensor([step + 1.0, 0.5])}
        found = alarm.observe(10 * step, rows, spectra)
    assert [layer.point.name for layer in found.layers] == ["deep"]
    record = found.record("warn")
    assert (record["layer"], record["kind"], record["since"], record["step"]) == ("deep", "output", 10, 20)
    (layer,) = record["layers"]
    assert layer["ranks"] == [{"step": step, "effective_rank": rank} for step, rank in ((0, 9.0), (10, 3.0), (20, 2.0))]
    assert (layer["spectrum_before"], layer["spectrum"]) == ([1.0, 0.5], [3.0, 0.5])
    assert "the output of deep has collapsed: its effective rank is 2.0 of 10, below 0.5 of that since step 10" in str(
        found
    )
    both = alarm.observe(30, [row(2, "shallow"), row(2, "deep")])
    assert [layer.point.name for layer in both.layers] == ["deep", "shallow"]
    assert "and 1 more with it" in str(both)


def test_the_last_healthy_checkpoint_is_the_newest_from_before_a_measurement_in_which_nothing_was_low():
    alarm = CollapseAlarm(0.5, 1)
    alarm.saved("early", 5)
    assert alarm.checkpoint is None  # nobody has measured since
    alarm.observe(10, [row(9)])
    alarm.saved("at ten", 10)
    alarm.saved("later", 15)
    assert alarm.checkpoint == "at ten"
    found = alarm.observe(20, [row(9, "other"), row(1)])
    assert (found.healthy_step, found.healthy_checkpoint) == (10, "at ten")
    alarm.observe(30, [row(9), row(float("nan"), "other")])
    assert alarm.checkpoint == "at ten"
    alarm.observe(40, [row(9), row(9, "other")])
    assert alarm.checkpoint == "later"


def test_an_alarm_goes_on_from_its_state_and_other_settings_count_anew():
    alarm = CollapseAlarm(0.5, 3)
    told(alarm, [9, 4, 4])
    state = json.loads(json.dumps(alarm.state_dict()))
    same, other = CollapseAlarm(0.5, 3), CollapseAlarm(0.5, 2)
    for continued in (same, other):
        continued.load_state_dict(state)
        assert continued.healthy == 1
    found = same.observe(4, [row(4)])
    assert found.first.ranks == ((1, 9.0), (2, 4.0), (3, 4.0), (4, 4.0))
    assert told(other, [4, 4], start=4) == [5]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(below=0), r"below must be a number in \(0, 1\], got 0"),
        (dict(below=1.5), r"below must be a number in \(0, 1\], got 1.5"),
        (dict(patience=0), "patience must be at least 1, got 0"),
        (dict(on_collapse="halt"), "on_collapse must be 'warn', 'stop', a function or None, got 'halt'"),
    ],
)
def test_wrong_settings_of_a_monitor_are_refused_with_the_value(how, message):
    with pytest.raises(ValueError, match=message):
        CollapseMonitor(nn.Linear(3, 3), **how)


def falling(folder, on_collapse, summaries=5, patience=2, after=lambda monitor, epoch: None):
    """A network whose second layer has rank one from the third epoch on, watched; a summary an epoch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    monitor = CollapseMonitor(model, every=1, on_collapse=on_collapse, below=0.2, patience=patience, folder=folder)
    with monitor:
        for epoch in range(summaries):
            if epoch == 2:
                model[1].weight.data.copy_(torch.ones(16, 16))
            model(torch.randn(64, 16))
            monitor.summary(step=epoch)
            monitor.summary(step=epoch)  # again the same: not one more measurement
            after(monitor, epoch)
    return monitor


def test_a_monitor_warns_once_and_writes_which_layer_since_when_and_the_last_healthy_checkpoint(tmp_path):
    def save(monitor, epoch):
        monitor.saved(tmp_path / f"epoch{epoch}.pt")

    with pytest.warns(UserWarning, match=r"step 3: the weight of 1 has collapsed, and 1 more with it") as warned:
        monitor = falling(tmp_path, "warn", after=save)
    assert len(warned) == 1
    record = json.loads((tmp_path / "collapse.json").read_text())
    assert [(layer["layer"], layer["kind"], layer["since"]) for layer in record["layers"]] == [
        ("1", "weight", 2),
        ("1", "output", 2),
    ]
    assert record["last_healthy"] == {"step": 1, "checkpoint": str(tmp_path / "epoch1.pt")}
    assert record["action"] == "warn"
    assert len(record["layers"][0]["spectrum"]) == 16
    assert record["layers"][0]["spectrum"][1] < 1e-3 < record["layers"][0]["spectrum_before"][1]
    assert monitor.alarm.checkpoint == str(tmp_path / "epoch1.pt")
    assert monitor.collapse.step == 3


def test_a_monitor_that_is_to_stop_raises_where_the_summary_is_called_and_one_with_a_function_calls_it(tmp_path):
    seen = []
    with pytest.raises(CollapsedError, match=r"the weight of 1 has collapsed.*collapse\.json has ranks") as caught:
        falling(tmp_path / "new", "stop", after=lambda monitor, epoch: seen.append(epoch))
    assert seen == [0, 1, 2]
    assert caught.value.collapse.step == 3
    assert CollapsedError.EXIT_CODE == 79
    found = []
    falling(tmp_path, found.append, patience=1)
    assert [collapse.step for collapse in found] == [2]
    assert json.loads((tmp_path / "collapse.json").read_text())["action"] == "call"


def test_a_folder_that_cannot_be_written_ends_no_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match=r"has collapsed.*collapse\.json could not be written"):
        falling(tmp_path / "file", "warn")


def test_without_on_collapse_nothing_is_looked_for_and_nothing_written(tmp_path):
    assert falling(tmp_path, None).collapse is None
    assert list(tmp_path.iterdir()) == []


def test_a_reset_monitor_has_forgotten_what_was_low(tmp_path):
    def reset(monitor, epoch):
        if epoch == 2:
            monitor.reset()

    found = []
    falling(tmp_path, found.append, after=reset)
    assert [collapse.step for collapse in found] == [4]
    assert found[0].healthy_step is None
