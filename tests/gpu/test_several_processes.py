"""Two processes on GPUs, or on one, against one process: gathered samples and synchronised BatchNorm."""

import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).parent))
import several_workers
from on_device import DEVICE, on_gpu

pytestmark = on_gpu


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(several_workers.both, (2, str(folder / "store"), str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_that_gather_have_the_gradient_of_one(by_rank):
    expected = several_workers.gathered(several_workers.alone(), several_workers.samples())
    for found in by_rank:
        torch.testing.assert_close(found["gathered"], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="torch has no SyncBatchNorm on a CPU")
def test_two_processes_with_synchronised_batch_norm_have_outputs_statistics_and_gradients_of_one(by_rank):
    expected = several_workers.normalised(several_workers.alone(), several_workers.samples())
    for found in by_rank:
        torch.testing.assert_close(found["normalised"], expected, rtol=1e-6, atol=1e-9)
