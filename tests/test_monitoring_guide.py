"""The two walk-throughs of the guide to monitoring are run, block by block."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch

TEXT = (Path(__file__).parents[1] / "docs/monitoring.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The names of the program, and the folder it ran in."""
    folder, names = tmp_path_factory.mktemp("monitoring"), {}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(folder)
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"docs/monitoring.md, block {number}", "exec"), names)
    return names, folder


def test_pre_training_stops_by_itself_and_keeps_the_last_healthy_checkpoint(program):
    names, folder = program
    found = json.loads((folder / "collapsing/collapse.json").read_text())
    assert (found["kind"], found["action"]) == ("output", "stop")
    assert found["layer"] in ("4", "6")  # one of the two deepest
    assert found["step"] < 9
    healthy = f"epoch{found['last_healthy']['step']}.pt"
    assert found["last_healthy"]["checkpoint"] == f"collapsing/{healthy}"
    assert (folder / "collapsing" / healthy).exists()
    state = torch.load(folder / "collapsing" / healthy)
    assert all(torch.equal(value, state[name]) for name, value in names["model"].state_dict().items())
    assert names["mended"].collapse is None
    assert len({row.step for row in names["mended"].history}) == 10


def test_a_lightning_user_finds_the_projector_and_mends_it(program):
    names, folder = program
    assert names["stopped"].current_epoch < 10
    assert names["callback"].collapse.first.point.name.startswith("projector.")
    assert {path.name for path in (folder / "lightning").iterdir()} == {
        "collapse.json",
        "healthy.ckpt",
        "collapsed.ckpt",
    }
    assert (names["whole"].current_epoch, names["mended_callback"].collapse) == (10, None)


def test_the_guide_names_the_exit_code_and_the_flag_of_the_command():
    from sslcollapse import CollapsedError

    assert f"exit code {CollapsedError.EXIT_CODE}" in TEXT
    assert "`--past-collapse`" in TEXT
