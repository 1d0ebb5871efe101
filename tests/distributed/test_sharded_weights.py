"""Weights that no process has as a whole: FSDP2's are brought together, what cannot be is refused."""

import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from sslcollapse.core.errors import SSLCollapseError
from sslcollapse.layers.map import layer_map
from sslcollapse.rank.measure import measure
from sslcollapse.rank.monitor import CollapseMonitor
from sslcollapse.regularizers.attach import WERank
from sslcollapse.regularizers.constraints import Constrained, Retraction

sys.path.insert(0, str(Path(__file__).parent))
import sharded_workers


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    mp.spawn(sharded_workers.sharded, (2, str(folder / "store"), str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", sharded_workers.PENALTIES)
def test_a_sharded_network_has_the_penalty_and_the_gradient_of_one_process(results, name):
    model = sharded_workers.network()
    value = sharded_workers.step(model, sharded_workers.PENALTIES[name](model), sharded_workers.inputs())
    for result in results:
        torch.testing.assert_close(result[name]["value"], value, rtol=1e-6, atol=0)
        for key, p in model.named_parameters():
            torch.testing.assert_close(result[name]["gradients"][key], p.grad, rtol=1e-5, atol=1e-6)


def test_the_ranks_of_a_sharded_network_are_those_of_one_process(results):
    model = sharded_workers.network()
    with CollapseMonitor(model, every=1) as monitor:
        model(sharded_workers.inputs())
        rows = monitor.summary()
    expected = {f"{row.kind}/{row.layer}": row.effective_rank for row in rows}
    for result in results:
        assert result["ranks"] == pytest.approx(expected, rel=1e-5)
        assert result["measured"] == pytest.approx(measure(model, [sharded_workers.inputs()]).metrics(), rel=1e-5)


@pytest.fixture(scope="module")
def constrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("constrained")
    mp.spawn(sharded_workers.constrained, (2, str(folder / "store"), str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("sharded_first", [False, True])
def test_retracted_weights_of_a_sharded_network_are_those_of_one_process(constrained, sharded_first):
    model = sharded_workers.network()
    held = Constrained({"first": Retraction(on=["0", "2"])}, model, layer_map(model))
    sharded_workers.constrained_steps(model, held, sharded_workers.inputs())
    for result in constrained:
        for key, p in model.named_parameters():
            torch.testing.assert_close(result[sharded_first][key], p.detach(), rtol=1e-4, atol=1e-5)
        weight = result[sharded_first]["2.weight"]
        torch.testing.assert_close(weight.T @ weight, torch.eye(7), rtol=0, atol=1e-5)


def test_a_parametrization_of_a_sharded_weight_is_refused_before_the_first_step_by_the_name_of_its_layer(constrained):
    for result in constrained:
        places = [line.partition(":")[0] for line in result["said"]]
        assert places == ["Orthogonal False", "SpectralNorm False", "Orthogonal True", "SpectralNorm True"]
        for line in result["said"]:
            assert "constraints.first.on: layer '0' cannot be constrained: no process has its weight as a whole" in line
            assert "'retraction' works with shards" in line


def test_flat_shards_of_fsdp1_are_refused_with_the_class_and_what_to_use(tmp_path):
    mp.spawn(sharded_workers.flat, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    for rank in range(2):
        said = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert len(said) == 2
        for line, what in zip(said, ("WERank", "CollapseMonitor"), strict=True):
            assert f"{what} cannot read FullyShardedDataParallel ('1')" in line
            assert "fully_shard" in line


@pytest.mark.parametrize("attach", [WERank, CollapseMonitor])
def test_deepspeeds_pieces_are_refused(attach):
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].weight.ds_id = 0  # what DeepSpeed's stage 3 puts on a parameter
    with pytest.raises(SSLCollapseError, match=r"cannot read Linear \('0'\): DeepSpeed's stage 3 .*fully_shard"):
        attach(model)


def test_a_copy_that_data_parallel_makes_is_refused_and_the_wrapped_network_is_not():
    model = nn.Sequential(nn.Linear(4, 3))
    replica = model._replicate_for_data_parallel()
    with pytest.raises(SSLCollapseError, match="WERank cannot read Sequential: it is a copy"):
        WERank(replica)
    assert torch.equal(WERank(nn.DataParallel(model))(), WERank(model)())
