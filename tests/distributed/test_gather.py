import sys
from pathlib import Path

import torch
import torch.multiprocessing as mp

from sslcollapse.distributed import Gather

sys.path.insert(0, str(Path(__file__).parent))
import workers


def test_two_ranks_with_half_a_batch_each_give_the_gradient_of_one_rank_with_the_whole(tmp_path):
    mp.spawn(workers.gathered_gradient, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3).double()
    x = torch.randn(6, 4, dtype=torch.float64) * torch.arange(1, 7)[:, None]
    workers.coupled_loss(model(x)).backward()
    for rank in range(2):
        gathered = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(gathered, model.weight.grad, rtol=1e-9, atol=0)


def test_gather_on_one_process_returns_its_input_untouched():
    x = torch.randn(3, 2)
    assert Gather()(x) is x
