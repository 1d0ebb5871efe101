"""Non-finite parameters, buffers and losses are found and named."""

import math

import pytest
import torch
from torch import nn

from sslcollapse.core.errors import NonFiniteLossError
from sslcollapse.training.finite import check_losses, check_tensors, first_non_finite, way_out


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).double())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["0.weight", "2.bias", "1.running_var"])
def test_one_bad_entry_of_a_parameter_or_buffer_is_found_by_name(name, value):
    module = network()
    assert first_non_finite(module) is None
    module.state_dict()[name].view(-1)[-1] = value
    assert first_non_finite(module) == name


@pytest.mark.parametrize("value", [complex(math.nan, 0), complex(0, math.nan), complex(0, math.inf)])
def test_a_bad_complex_entry_is_found(value):
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.complex64))
    assert first_non_finite(module) is None
    module.state_dict()["1.weight"].view(-1)[1] = value
    assert first_non_finite(module) == "1.weight"


def test_large_but_finite_entries_pass():
    module = network()
    nn.init.constant_(module[0].weight, 3e38)
    nn.init.constant_(module[2].weight, 1e300)
    assert first_non_finite(module) is None


def test_a_module_without_floating_tensors_passes():
    assert first_non_finite(nn.ReLU()) is None


def test_the_first_of_several_is_named_with_the_step(tmp_path):
    module = network()
    for parameter in module.parameters():
        nn.init.constant_(parameter, math.nan)
    with pytest.raises(NonFiniteLossError, match=r"step 7: 0\.weight has NaN or infinite entries"):
        check_tensors(7, module, tmp_path)


def test_a_named_part_is_blamed_before_the_sum(tmp_path):
    parts = {"loss": torch.tensor(math.nan), "objective/bgrl": torch.tensor(1.0), "penalty": torch.tensor(math.nan)}
    with pytest.raises(NonFiniteLossError, match="step 3: penalty is nan"):
        check_losses(3, parts, tmp_path)


def test_a_checkpoint_is_spoken_of_only_where_there_is_one(tmp_path):
    assert "No checkpoint was written" in way_out(tmp_path)
    (tmp_path / "step00000040.pt").touch()
    assert "of step 40, is from before" in way_out(tmp_path)
    assert "No checkpoint" not in way_out(tmp_path)
