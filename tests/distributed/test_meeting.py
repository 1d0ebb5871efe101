"""A barrier without a time limit, in two real processes over gloo."""

import json
import sys
from pathlib import Path

import pytest
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).parent))
import workers

from sslcollapse.core.distributed import meeting


def test_every_rank_hears_what_each_found_and_which_one_failed(tmp_path):
    mp.spawn(workers.meetings, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    heard = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert heard[0][0] == heard[1][0] == [{"rank": rank, "third": 1 / 3} for rank in range(2)]
    assert heard[0][1] == "RunError: rank 1 failed while sorting: out of paper"
    assert heard[1][1] == "ValueError: out of paper"
    assert heard[0][2].startswith("rank 1 is reading and this one writing"), "a result of something else is not taken"
    assert heard[1][2].startswith("rank 0 is writing and this one reading")


def test_alone_a_meeting_is_its_block():
    with meeting("counting") as alone:
        alone.result = 3
    assert alone.results == [3]
    with pytest.raises(ZeroDivisionError), meeting("dividing"):
        _ = 1 / 0
