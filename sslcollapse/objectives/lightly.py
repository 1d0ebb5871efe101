"""Adapter to the losses of lightly that compare embeddings of two or more views."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import Gather, world_size
from sslcollapse.core.errors import RecipeError, absent, in_words, suggest
from sslcollapse.core.memory import in_units, machine_memory
from sslcollapse.core.precision import full_precision, precisely
from sslcollapse.core.schedules import ema_momentum
from sslcollapse.core.seeding import seed_default
from sslcollapse.core.types import Branch
from sslcollapse.nn.heads import Head, LightlyHead
from sslcollapse.nn.init import check_arguments
from sslcollapse.nn.moments import widen
from sslcollapse.nn.norm import ActivationName, NormName
from sslcollapse.objectives.base import Objective, check_projector, check_samples, embeddings_of_two_views
from sslcollapse.recipe.check import quote
from sslcollapse.recipe.schema import Probability, Width


@dataclass(frozen=True)
class Known:
    """What is known of a loss of lightly.

    Args:
        module: of ``lightly.loss`` where it is.
        form: how it takes embeddings: ``"pair"`` (two tensors), ``"list"`` (a list of tensors), ``"rows"`` (all views
            one after the other in one tensor), ``"crops"`` (``local_proj`` and ``global_proj``), ``"manifold"``
            ([N, views, d] of the online and of a momentum network).
        gathers: whether several processes have the gradient of one where ``gather_distributed`` is on. Where it is
            False, or there is no such argument, embeddings are gathered before the loss sees them.
        draws: whether it draws random numbers, which have to be the same on every process.
        momentum: whether it was published with a momentum network for the other view.
    """

    module: str
    form: str
    gathers: bool = False
    draws: bool = False
    momentum: bool = False


LOSSES = {
    "BarlowTwinsLoss": Known("barlow_twins_loss", "pair"),
    "DCLLoss": Known("dcl_loss", "pair", gathers=True),
    "DCLWLoss": Known("dcl_loss", "pair"),
    "DirectCLRLoss": Known("directclr_loss", "pair", gathers=True),
    "FroSSLLoss": Known("frossl_loss", "list"),
    "HypersphereLoss": Known("hypersphere_loss", "pair"),
    "LeJEPALoss": Known("lejepa_loss", "crops", gathers=True, draws=True),
    "MACLLoss": Known("macl_loss", "pair"),
    "MMCRLoss": Known("mmcr_loss", "manifold", momentum=True),
    "NTXentLoss": Known("ntx_ent_loss", "pair", gathers=True),
    "TiCoLoss": Known("tico_loss", "pair", gathers=True, momentum=True),
    "VICRegLoss": Known("vicreg_loss", "pair", gathers=True),
    "VISRegLoss": Known("visreg_loss", "crops", gathers=True, draws=True),
    "WMSELoss": Known("wmse_loss", "rows", draws=True),
}
"""Losses that can be used by name."""

PROTOTYPES = "prototypes, which are weights of a head of their own: write an objective around it"
PATCHES = "features of patches, which encoders here pool away: write an objective, and an encoder that keeps them"
MASKS = "masks of objects for both views: write a domain that yields them and an objective"
ONE_SET = "one set of embeddings, it compares no views"
OTHERS = {
    "CAPILoss": PATCHES,
    "CO2Regularizer": "a loss beside it, it is a term: register it as a regularizer on features",
    "DSERegularizer": PATCHES,
    "DINOLoss": PROTOTYPES,
    "DetConBLoss": MASKS,
    "DetConSLoss": MASKS,
    "EMPSSLLoss": "another sign: lightly adds the coding rate that EMP-SSL subtracts, so that collapse is rewarded",
    "IBOTPatchLoss": PATCHES,
    "IBOTPlusPlusPatchLoss": PATCHES,
    "KoLeoLoss": f"{ONE_SET}: register it as a regularizer on features",
    "LeWMLoss": "frames of a clip in order: write a domain that yields them and an objective",
    "MSNLoss": PROTOTYPES,
    "NegativeCosineSimilarity": "a predictor and a stopped gradient: use the objective 'simsiam' or 'byol'",
    "PMSNCustomLoss": PROTOTYPES,
    "PMSNLoss": PROTOTYPES,
    "PatchKernelAlignmentLoss": PATCHES,
    "SIGReg": f"{ONE_SET}: use the regularizer 'sigreg'",
    "SwaVLoss": PROTOTYPES,
    "VICRegLLoss": PATCHES,
    "Whitening2d": "a loss after it, it is a layer: use 'WMSELoss'",
}
"""Other losses and modules of ``lightly.loss`` → what they need, and how to get it."""

OURS = {
    "gather_distributed": "is set from whether processes hold different samples",
    "memory_bank_size": "needs a momentum network that fills the bank: write an objective around the loss",
    "num_samples": "is the number of views of the domain",
    "loss_fn": "is a function, which a recipe cannot say",
    "weight_fn": "is a function, which a recipe cannot say; 'DCLWLoss' has the published one",
}
"""Arguments of losses that a recipe does not give, and why."""

WIDTHS = (2048, 128)


class Lightly(Objective):
    """Any loss of lightly that compares embeddings of two or more views, by name.

    Which losses of lightly these are, and what the others need, is the table of ``docs/adapters.md``. The loss gets
    the embeddings of all processes, in float32, so that W processes with B/W samples have the gradient of one with B:
    by its own ``gather_distributed`` where a test has found that exact, else by gathering before it. A loss that
    draws random numbers draws the same ones on every process. Some (DCLLoss, DirectCLRLoss, FroSSLLoss, MACLLoss,
    NTXentLoss, VICRegLoss) read values or index with masks, so that each step waits for a GPU.

    Args:
        loss: name of the class, e.g. ``"VISRegLoss"``.
        arguments: the loss's own, e.g. ``dict(lambda_param=0.6)``.
        head: class of ``lightly.models.modules.heads`` that is the projector, e.g. ``"SimCLRProjectionHead"``; None is
            the projector of this package.
        head_arguments: of a head of lightly beside its widths, e.g. ``dict(num_layers=3)``.
        projector: width of each linear layer of our projector, empty for none; of a head of lightly its
            ``hidden_dim`` and ``output_dim``. None is 2048 and 128, and whatever a head of lightly has by default.
        norm: after each layer of our projector but the last; None is ``"batch"``.
        activation: after each layer of our projector but the last; None is ``"relu"``.
        global_views: of a loss of global and local crops (LeJEPA, VISReg) how many of the first views are global; None
            is all.
        normalize: whether embeddings are brought to length 1 before the loss, where it does not do so itself: MMCR was
            published with it, and has no lower bound without.
        momentum: EMA momentum at step 0, raised to 1 over training, of a network that embeds the other view, for losses
            that were published with one (MMCR, TiCo); None has no such network.

    Shapes:
        z of each branch: [N, d].

    Raises:
        ValueError: for a loss, a head or arguments that lightly does not have, or that belong to something else.
        RecipeError: for a number of views that the loss does not take, or a single sample.
    """

    couples_batch = True

    def __init__(
        self,
        *,
        loss: str,
        arguments: Mapping[str, Any] | None = None,
        head: str | None = None,
        head_arguments: Mapping[str, Any] | None = None,
        projector: Sequence[Width] | None = None,
        norm: NormName | None = None,
        activation: ActivationName | None = None,
        global_views: Width | None = None,
        normalize: bool = False,
        momentum: Probability | None = None,
    ) -> None:
        super().__init__()
        self.known = _known(loss)
        self.name = loss
        self.loss = _loss(loss, self.known, dict(arguments or {}))
        if head is None and head_arguments:
            raise ValueError(
                f"head_arguments: {quote(dict(head_arguments))} belong to a head of lightly; name it in head"
            )
        if head is not None and (norm, activation) != (None, None):
            raise ValueError(
                f"norm and activation: are of our projector; {head} has its own (head_arguments), or leave head out"
            )
        self.head, self.head_arguments = head, dict(head_arguments or {})
        self.widths = None if projector is None else check_projector(projector)
        self.norm: NormName = norm or "batch"
        self.activation: ActivationName = activation or "relu"
        if head is not None:
            with torch.device("meta"):
                LightlyHead(8, head, self.widths, self.head_arguments)  # refuses what it cannot have, costs nothing
        if global_views is not None and self.known.form != "crops":
            raise ValueError(f"global_views: {loss} knows no global and local views; leave it out")
        if momentum is not None and not self.known.momentum:
            with_one = ", ".join(name for name, known in LOSSES.items() if known.momentum)
            raise ValueError(f"momentum: {loss} was published without a momentum network ({with_one} have one)")
        self.global_views, self.momentum, self.normalize = global_views, momentum, normalize
        self.needs_target = momentum is not None

    def projector(self, in_dim: int) -> nn.Module | None:
        """Our projector, or a head of lightly."""
        built: Head | LightlyHead | None = None
        if self.head is not None:
            built = LightlyHead(in_dim, self.head, self.widths, self.head_arguments)
        elif self.widths is None or self.widths:
            built = Head(in_dim, *(self.widths or WIDTHS), norm=self.norm, activation=self.activation)
        dim = in_dim if built is None else built.out_dim
        if self.name == "TiCoLoss":
            # Its running covariance is a plain attribute, made in the first step: no checkpoint would hold it.
            del self.loss.C
            self.loss.register_buffer("C", torch.zeros(dim, dim))
        if self.name == "WMSELoss" and self.loss.whitening.num_features != dim:
            raise RecipeError(
                f"objective.arguments.embedding_dim: WMSELoss whitens {self.loss.whitening.num_features} features, and "
                f"embeddings have {dim}; set it to {dim}, with a w_size of at least {2 * dim}"
            )
        return built

    def momentum_at(self, step: int, total: int) -> float:
        """EMA momentum of the target after this optimiser step."""
        if self.momentum is None:
            return super().momentum_at(step, total)
        return ema_momentum(step, total, self.momentum)

    def forward(
        self, online: Sequence[Branch], target: Sequence[Branch] | None, gather: Gather
    ) -> Mapping[str, Tensor]:
        """Online branches, and with ``momentum`` target branches → ``{loss's name: loss}``, float32 or wider."""
        z = [branch.z for branch in online]
        if len(z) < 2:
            raise RecipeError(f"{self.name} compares at least two views of a sample, got {len(z)}; set views.count=2")
        if self.known.form == "pair":
            embeddings_of_two_views(self.name, online)
        check_samples(self.name, len(z[0]) * gather.ranks)
        others = [] if target is None else [branch.z for branch in target]
        # A collective of unequal shapes mixes rows: lightly does not compare them, our own gathering does.
        theirs = self.known.gathers and gather.equal
        for module in self.loss.modules():
            if hasattr(module, "gather_distributed"):
                module.gather_distributed = theirs and gather.enabled
        with full_precision(z[0].device), _same_draws(self.known.draws, z[0].device):
            views = [widen(view) for view in (*z, *others)]
            if self.normalize:
                views = [nn.functional.normalize(view, dim=1) for view in views]
            if not theirs:
                views = list(gather.views(*views))
            return {self.name: precisely(lambda *each: self._call([*each[: len(z)]], [*each[len(z) :]]), *views)}

    def _call(self, z: list[Tensor], others: list[Tensor]) -> Tensor:
        form = self.known.form
        if form == "list":
            return self.loss(z)
        if form == "crops":
            return self._crops(z)
        if form == "manifold":
            return self._manifold(z, others)
        if form == "rows":
            self.loss.num_samples, self.loss.num_pairs = len(z), len(z) * (len(z) - 1) // 2
            return self.loss(torch.cat(z))
        if not others:
            return self.loss(*z)
        second = self.loss(z[1], others[0], update_covariance_matrix=False)  # once a step
        return 0.5 * (self.loss(z[0], others[1]) + second)

    def _crops(self, z: list[Tensor]) -> Tensor:
        count = len(z) if self.global_views is None else self.global_views
        if count > len(z):
            raise RecipeError(f"objective.global_views: {count} are more than the {len(z)} views of the domain")
        # It wants a local view. All terms are means over views, so that twice the same views have the same loss.
        return self.loss(global_proj=torch.stack(z[:count]), local_proj=torch.stack(z[count:] or z))

    def _manifold(self, z: list[Tensor], others: list[Tensor]) -> Tensor:
        if not others:
            if len(z) % 2:
                raise RecipeError(f"{self.name} needs an even number of views without momentum, got {len(z)}")
            z, others = z[: len(z) // 2], z[len(z) // 2 :]  # it takes them together again
        return self.loss(torch.stack(z, dim=1), torch.stack(others, dim=1))


def _known(name: str) -> Known:
    if name in LOSSES:
        return LOSSES[name]
    if name in OTHERS:
        raise ValueError(f"loss: {name} needs {OTHERS[name]}")
    near = suggest(name, list(LOSSES))
    raise ValueError(f"loss: no known loss of lightly is named {name!r}{near} (known: {', '.join(LOSSES)})")


def _loss(name: str, known: Known, arguments: dict[str, Any]) -> Any:
    """The loss, constructed.

    Raises:
        ValueError: the installed lightly does not have it, or refuses the arguments.
    """
    try:
        make: Callable[..., Any] = getattr(importlib.import_module(f"lightly.loss.{known.module}"), name)
    except (ImportError, AttributeError) as error:
        if (lacking := absent(error)) is not None:
            raise ValueError(f"loss: {lacking}") from error
        from importlib.metadata import version

        raise ValueError(f"loss: lightly {version('lightly')} has no {name} ({error}); install a newer one") from error
    check_arguments("arguments", name, make, arguments, OURS)
    try:
        with torch.device("meta"):
            needed = sum(buffer.numel() * buffer.element_size() for buffer in make(**arguments).buffers())
        if needed > machine_memory():
            raise ValueError(f"it would need {in_units(needed)} of memory")
        return make(**arguments)
    except Exception as error:
        raise ValueError(f"arguments: {name} refuses {quote(arguments)}: {in_words(error)}") from error


@contextmanager
def _same_draws(draws: bool, device: torch.device) -> Iterator[None]:
    """Draw in the block from a stream that is the same on every process, and leave torch's own stream as it was.

    Its seed comes from torch's stream of the first process, which the trainer starts anew at every step. Sending it
    takes a collective of one number, for which the host waits.
    """
    if not draws:
        yield
        return
    seed = torch.randint(1 << 62, (1,))
    if world_size() > 1:
        seed = seed.to(device)
        torch.distributed.broadcast(seed, 0)
    with torch.random.fork_rng([] if device.type == "cpu" else [device]):
        seed_default(device, int(seed))
        yield
