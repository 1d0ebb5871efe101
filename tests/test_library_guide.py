"""The program of the library guide is run, block by block."""

import re
from pathlib import Path

import pytest
import torch

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs/library.md").read_text(), flags=re.DOTALL
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """What each block printed the names of, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("library")
    names = {}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"docs/library.md, block {number}", "exec"), names)
    return names, folder


def test_every_block_of_the_guide_runs_in_order(program):
    names, folder = program
    assert len(BLOCKS) == 10
    assert (folder / "ranks.png").exists()
    assert [part.name for part in names["coverage"].unread] == ["1"]
    assert all(torch.isfinite(parameter).all() for parameter in names["model"].parameters())


def test_the_guides_monitor_has_a_summary_an_epoch_and_its_numbers_agree_with_the_streamed_ones(program):
    names, _ = program
    z, sigma, sc = names["z"], names["sigma"], names["sc"]
    assert sc.effective_rank(z) == pytest.approx(sc.effective_rank_from_singular_values(sigma), rel=1e-5)
    assert set(names["outputs"]) == {"0.0", "0.3", "1.0"}
    assert names["outputs"]["0.3"].n == 512
    assert all(not part._forward_hooks for part in names["model"].modules())
