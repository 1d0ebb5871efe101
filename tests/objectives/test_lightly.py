"""Losses of lightly as objectives: which, with which heads, views, states and draws."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import lightly.loss
import pytest
import torch
from lightly.models.modules import heads
from torch import nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import OBJECTIVES, RegistryError
from sslcollapse.core.types import Batch, Branch
from sslcollapse.objectives import lightly as adapter
from sslcollapse.training.module import SSLModule

ROOT = Path(__file__).parents[2]
SMALL = {
    "WMSELoss": {"embedding_dim": 4, "w_size": 12},
    "VISRegLoss": {"num_slices": 16},
    "DirectCLRLoss": {"loss_dim": 3},
}
PAIRS = [name for name, known in adapter.LOSSES.items() if known.form == "pair"]


def installed() -> set[str]:
    """Every module that the installed ``lightly.loss`` defines."""
    found = set()
    for place in pkgutil.walk_packages(lightly.loss.__path__, "lightly.loss."):
        module = importlib.import_module(place.name)
        own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == place.name]
        found |= {c.__name__ for c in own if issubclass(c, nn.Module)}
    return found - {"MemoryBankModule"}


def objective(loss: str, **settings):
    spec = {"type": "lightly", "loss": loss, "arguments": SMALL.get(loss, {}), "projector": [9, 4], "norm": "none"}
    return OBJECTIVES.build({**spec, **settings})


def embeddings(views: int, rows: int = 12, dim: int = 4) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(rows, dim, generator=rng)
    return [(x + 0.3 * torch.randn(rows, dim, generator=rng)).requires_grad_() for _ in range(views)]


def value(loss: str, z: list[torch.Tensor], **settings) -> torch.Tensor:
    built = objective(loss, projector=[], **settings)
    built.projector(z[0].shape[1])
    torch.manual_seed(0)
    return built([Branch(view, view, None) for view in z], None, Gather())[loss]


def test_every_loss_of_the_installed_lightly_is_usable_or_it_is_said_what_it_needs():
    assert not set(adapter.LOSSES) & set(adapter.OTHERS)
    assert installed() <= {*adapter.LOSSES, *adapter.OTHERS}


@pytest.mark.parametrize("loss", sorted(adapter.LOSSES))
def test_a_usable_loss_trains_an_encoder_and_head_from_finite_gradients(loss):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
    encoder.out_dim = 5
    module = SSLModule(encoder, objective(loss), total_steps=10)
    x = torch.randn(2, 12, 6)
    module(Batch(list(x), torch.arange(12), None, False), 0)["loss"].backward()
    gradients = [p.grad for p in module.parameters()]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert all(g.abs().sum() > 0 for g in gradients if g.dim() == 2)


@pytest.mark.parametrize("loss", PAIRS)
def test_a_loss_of_two_views_is_lightlys_own(loss):
    z = embeddings(2)
    module = importlib.import_module(f"lightly.loss.{adapter.LOSSES[loss].module}")
    theirs = getattr(module, loss)(**SMALL.get(loss, {}))
    assert torch.equal(value(loss, z), theirs(*z))


@pytest.mark.parametrize("loss", sorted(adapter.OTHERS))
def test_a_loss_that_needs_more_than_embeddings_is_refused_with_what_it_needs(loss):
    with pytest.raises(RegistryError, match=re.escape(f"loss: {loss} needs {adapter.OTHERS[loss]}")):
        objective(loss)


def test_lightlys_emp_ssl_prefers_collapsed_embeddings_which_is_why_it_is_refused():
    spread = embeddings(1, 64, 8)[0].detach()
    collapsed = spread[:, :1] * torch.ones(1, 8)
    loss = lightly.loss.EMPSSLLoss()
    assert loss([collapsed, collapsed]) < loss([spread, spread])


def test_crops_without_local_ones_have_the_loss_of_all_views_as_global_ones():
    z = embeddings(3)
    invariance = torch.stack([(view - torch.stack(z).mean(0)).square() for view in z]).mean()
    assert value("LeJEPALoss", z, arguments={"lambda_param": 0.0}).item() == pytest.approx(invariance.item())


def test_views_after_the_global_ones_are_drawn_to_their_mean():
    z = embeddings(4)
    centre = (z[0] + z[1]) / 2
    invariance = torch.stack([(view - centre).square() for view in z]).mean()
    found = value("VISRegLoss", z, arguments={"lambda_param": 0.0, "num_slices": 4}, global_views=2)
    assert found.item() == pytest.approx(invariance.item())


def test_a_loss_of_any_number_of_views_sees_them_all():
    z = embeddings(3)
    for loss in ("FroSSLLoss", "WMSELoss", "LeJEPALoss"):
        gradients = torch.autograd.grad(value(loss, z), z)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_mmcr_takes_an_even_number_of_views_together_and_normalised_it_is_bounded():
    z = embeddings(2)
    assert value("MMCRLoss", [10 * view for view in z]).item() == pytest.approx(10 * value("MMCRLoss", z).item(), 1e-4)
    bounded = [value("MMCRLoss", [scale * view for view in z], normalize=True).item() for scale in (1, 10)]
    assert bounded[0] == pytest.approx(bounded[1], rel=1e-4)
    with pytest.raises(RecipeError, match="needs an even number of views without momentum, got 3"):
        value("MMCRLoss", embeddings(3))


@pytest.mark.parametrize("loss", [name for name, known in adapter.LOSSES.items() if known.momentum])
def test_a_loss_with_momentum_predicts_a_network_that_follows(loss):
    built = objective(loss, momentum=0.9)
    assert built.needs_target
    assert [built.momentum_at(step, 10) for step in (0, 10)] == pytest.approx([0.9, 1.0])
    built.projector(4)
    online, target = (embeddings(2), [view.detach().flip(0) for view in embeddings(2)])
    branches = [[Branch(view, view, None) for view in views] for views in (online, target)]
    found = built(*branches, Gather())[loss]
    gradients = torch.autograd.grad(found, online)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert not torch.equal(found, value(loss, online))


def test_the_running_covariance_of_tico_is_in_the_state_and_moves_once_a_step():
    built = objective("TiCoLoss", projector=[], momentum=0.9)
    built.projector(4)
    z = [Branch(view, view, None) for view in embeddings(2)]
    built(z, z, Gather())
    first = nn.functional.normalize(z[0].z.detach(), dim=1)
    torch.testing.assert_close(built.state_dict()["loss.C"], 0.1 * first.T @ first / 12)
    resumed = objective("TiCoLoss", projector=[], momentum=0.9)
    resumed.projector(4)
    resumed.load_state_dict(built.state_dict())
    assert torch.equal(built(z, z, Gather())["TiCoLoss"], resumed(z, z, Gather())["TiCoLoss"])


@pytest.mark.parametrize("loss", [name for name, known in adapter.LOSSES.items() if known.draws])
def test_draws_follow_the_step_and_leave_torchs_own_stream_one_number_further(loss):
    z = embeddings(2)
    assert torch.equal(value(loss, z), value(loss, z))
    torch.manual_seed(0)
    torch.randint(1 << 62, (1,))
    after = torch.rand(1)
    value(loss, z)
    assert torch.equal(torch.rand(1), after)


HEADS = [name for name, c in vars(heads).items() if inspect.isclass(c) and issubclass(c, heads.ProjectionHead)]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("head", sorted(set(HEADS) - {"ProjectionHead"}))
def test_every_head_of_lightly_projects_and_starts_again(head):
    built = objective("NTXentLoss", head=head, projector=[16, 8], norm=None).projector(6)
    assert built(torch.randn(5, 6)).shape == (5, built.out_dim)
    before = [p.detach().clone() for p in built.parameters() if p.dim() == 2]
    built.reset_parameters()
    after = [p for p in built.parameters() if p.dim() == 2]
    assert any(not torch.equal(p, old) for p, old in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (dict(loss="VISReg"), r"no known loss of lightly is named 'VISReg'; did you mean 'VISRegLoss'\?"),
        (dict(loss="NTXentLoss", arguments=dict(temprature=1)), r"no such argument; did you mean 'temperature'\?"),
        (dict(loss="NTXentLoss", arguments=dict(gather_distributed=True)), "is set from whether processes hold"),
        (dict(loss="NTXentLoss", arguments=dict(memory_bank_size=8)), "memory_bank_size: needs a momentum network"),
        (dict(loss="NTXentLoss", arguments=dict(temperature=0)), r"NTXentLoss refuses {'temperature': 0}: "),
        (dict(loss="NTXentLoss", head="SimCLR", norm=None), r"no head 'SimCLR'; did you mean 'SimCLRProjectionHead'\?"),
        (dict(loss="NTXentLoss", head="SimCLRProjectionHead", norm=None, projector=[3]), r"its output_dim, got \[3\]"),
        (dict(loss="NTXentLoss", head="SimCLRProjectionHead"), "norm and activation: are of our projector"),
        (dict(loss="NTXentLoss", head_arguments=dict(num_layers=3)), "belong to a head of lightly; name it in head"),
        (dict(loss="NTXentLoss", global_views=2), "global_views: NTXentLoss knows no global and local views"),
        (dict(loss="NTXentLoss", momentum=0.9), r"without a momentum network \(MMCRLoss, TiCoLoss have one\)"),
    ],
)
def test_a_mistake_in_a_spec_is_named(spec, message):
    with pytest.raises(RegistryError, match=message):
        objective(**spec)


def test_what_only_the_network_tells_is_named_too():
    with pytest.raises(RecipeError, match=r"embedding_dim: WMSELoss whitens 128 .* have 4; set it to 4, with .* 8"):
        objective("WMSELoss", arguments={}).projector(6)
    with pytest.raises(RecipeError, match="3 are more than the 2 views"):
        value("LeJEPALoss", embeddings(2), global_views=3)
    with pytest.raises(RecipeError, match="NTXentLoss compares exactly two views"):
        value("NTXentLoss", embeddings(3))
    with pytest.raises(RecipeError, match="FroSSLLoss compares at least two views of a sample, got 1"):
        value("FroSSLLoss", embeddings(1))


def test_a_loss_that_would_not_fit_into_memory_is_refused_with_the_number():
    with pytest.raises(RegistryError, match=r"refuses {'embedding_dim': 1000000, .*it would need 4 TB of memory"):
        objective("WMSELoss", arguments={"embedding_dim": 10**6, "w_size": 2 * 10**6})


def test_lightly_is_imported_where_a_recipe_asks_for_it_and_nowhere_else():
    code = "import sys, sslcollapse.objectives.lightly; print('lightly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_table_of_the_guide_is_what_the_adapter_knows():
    lines = (ROOT / "docs/adapters.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    usable = {row[0].strip("`"): row[1:] for row in rows if len(row) == 4}
    others = {row[0].strip("`"): row[1] for row in rows if len(row) == 2 and row[0].strip("`") in adapter.OTHERS}
    assert list(usable) == list(adapter.LOSSES)
    for name, known in adapter.LOSSES.items():
        module = importlib.import_module(f"lightly.loss.{known.module}")
        has = "gather_distributed" in inspect.signature(getattr(module, name)).parameters
        own = "exact" if known.gathers else "wrong" if has else "none"
        views = "2" if known.form == "pair" else "2, 4, …" if known.form == "manifold" else "2 or more"
        assert usable[name][:2] == [views, own], name
    assert others == adapter.OTHERS
