"""Objectives that predict a target network's embedding: BYOL, and BGRL, which is its form on graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.precision import full_precision
from sslcollapse.core.schedules import ema_momentum
from sslcollapse.core.types import Branch
from sslcollapse.nn.heads import Head
from sslcollapse.nn.init import check_widths
from sslcollapse.nn.norm import ActivationName, NormName
from sslcollapse.objectives.base import Objective, check_projector
from sslcollapse.recipe.schema import Probability, Width


class Bootstrap(Objective):
    """What BGRL and BYOL share: the target's embedding of the other view is predicted; 2 − cos(p₁, z′₂) − cos(p₂, z′₁).

    Args:
        name: of the loss.
        predictor_hidden: width of the predictor's hidden layer, or widths of several.
        momentum: EMA momentum at step 0.
        momentum_schedule: ``"cosine"`` raises it to 1 over training; ``"constant"`` keeps it.
    """

    needs_target = True
    couples_batch = False

    def __init__(
        self,
        name: str,
        predictor_hidden: int | Sequence[int],
        momentum: float,
        momentum_schedule: Literal["cosine", "constant"],
    ) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        self.name = name
        self.predictor_hidden = hidden_widths(predictor_hidden)
        self.momentum = momentum
        self.momentum_schedule = momentum_schedule

    def momentum_at(self, step: int, total: int) -> float:
        """EMA momentum of the target after this optimiser step."""
        return self.momentum if self.momentum_schedule == "constant" else ema_momentum(step, total, self.momentum)

    def forward(
        self, online: Sequence[Branch], target: Sequence[Branch] | None, gather: Gather
    ) -> Mapping[str, Tensor]:
        """Two online and two target branches → ``{name: loss}``, in [0, 4]."""
        return {self.name: 2.0 - crossed_agreement(self.name, online, target or ())}


class BGRL(Bootstrap):
    """Predict the target's representation of the other view; loss 2 − cos(p₁, h′₂) − cos(p₂, h′₁).

    Means are over nodes. The target has the encoder's shape and, as in the authors' code, its own
    initialisation, follows by an exponential moving average over parameters only (buffers such as
    BatchNorm's running statistics are its own), and runs in train mode.

    Args:
        predictor_hidden: width of the predictor's hidden layer (Linear, PReLU, Linear), or widths of several.
        predictor_norm: after each hidden layer of the predictor; the authors' has none.
        momentum: EMA momentum at step 0.
        momentum_schedule: ``"cosine"`` raises it to 1 over training; ``"constant"`` keeps it.
        target_initialization: ``"own"`` (the authors' code) or ``"copy"`` (of the online encoder, as BYOL).
        target_buffers: ``"own"`` (the authors' code) or ``"copy"``: the target's buffers are set to the online
            encoder's after each update. In train mode BatchNorm does not normalise by them.

    Shapes:
        p of each online branch and z of each target branch: [N, d].

    Raises:
        ValueError: for a momentum outside [0, 1] or a width below 1.
        RecipeError: for other than two views.

    Source: Thakoor et al., "Large-Scale Representation Learning on Graphs via Bootstrapping", ICLR 2022, eq. 3.
    """

    def __init__(
        self,
        *,
        predictor_hidden: Width | Sequence[Width] = 512,
        momentum: Probability = 0.99,
        momentum_schedule: Literal["cosine", "constant"] = "cosine",
        target_initialization: Literal["own", "copy"] = "own",
        target_buffers: Literal["own", "copy"] = "own",
        predictor_norm: NormName = "none",
    ) -> None:
        super().__init__("bgrl", predictor_hidden, momentum, momentum_schedule)
        self.target_initialization = target_initialization
        self.target_buffers = target_buffers
        self.predictor_norm = predictor_norm

    def predictor(self, in_dim: int) -> nn.Module:
        """Linear, normalisation (by default none) and PReLU, then Linear."""
        return Head(in_dim, *self.predictor_hidden, in_dim, norm=self.predictor_norm)


class BYOL(Bootstrap):
    """Predict the target's embedding of the other view; loss 2 − cos(p₁, z′₂) − cos(p₂, z′₁).

    The target starts as a copy of encoder and projector, follows by an exponential moving average over parameters
    only, and runs in train mode: its BatchNorm layers normalise by their own forward passes.

    The paper's sum of squared distances is twice this loss, the mean of two negative cosines in lightly's examples
    half of it up to a constant: a learning rate published for one of them is scaled accordingly where the optimiser
    depends on the gradient's length (SGD; neither AdamW nor LARS).

    Args:
        projector: width of each linear layer of the projector; empty for none.
        predictor_hidden: width of the predictor's hidden layer, or widths of several; its output is as wide as
            its input.
        momentum: EMA momentum at step 0.
        momentum_schedule: ``"cosine"`` raises it to 1 over training; ``"constant"`` keeps it.
        norm: after each hidden layer of both heads.
        activation: after each hidden layer of both heads.

    Shapes:
        p of each online branch and z of each target branch: [N, d].

    Raises:
        ValueError: for a momentum outside [0, 1] or a width below 1.
        RecipeError: for other than two views.

    Source: Grill et al. 2020, eq. 2.
    """

    def __init__(
        self,
        *,
        projector: Sequence[Width] = (4096, 256),
        predictor_hidden: Width | Sequence[Width] = 4096,
        momentum: Probability = 0.99,
        momentum_schedule: Literal["cosine", "constant"] = "cosine",
        norm: NormName = "batch",
        activation: ActivationName = "relu",
    ) -> None:
        super().__init__("byol", predictor_hidden, momentum, momentum_schedule)
        self.widths = check_projector(projector)
        self.norm, self.activation = norm, activation

    def projector(self, in_dim: int) -> nn.Module | None:
        """Linear, normalisation and activation, repeated, then Linear."""
        return Head(in_dim, *self.widths, norm=self.norm, activation=self.activation) if self.widths else None

    def predictor(self, in_dim: int) -> nn.Module:
        """The same, as wide at the end as at the start."""
        return Head(in_dim, *self.predictor_hidden, in_dim, norm=self.norm, activation=self.activation)


def crossed_agreement(name: str, online: Sequence[Branch], target: Sequence[Branch]) -> Tensor:
    """cos(p₁, z′₂) + cos(p₂, z′₁), means over rows; no gradient goes to z′.

    Raises:
        RecipeError: unless there are two predictions and two targets.
    """
    predictions = [branch.p for branch in online if branch.p is not None]
    if len(predictions) != 2 or len(target) != 2:
        raise RecipeError(
            f"{name} needs two predictions and two targets, one a view, got {len(predictions)} and {len(target)}; "
            "let the domain make two views"
        )
    return mean_cosine(predictions[0], target[1].z) + mean_cosine(predictions[1], target[0].z)


def mean_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Mean over rows of cos(p, z), in float32 or wider: [N, d], [N, d] → scalar. No gradient goes to z.

    Norms are bounded below by 1e-8, as in ``torch.nn.functional.cosine_similarity``. The negative of it is lightly's
    ``NegativeCosineSimilarity``, right under any number of processes; this one has fewer passes over memory, and stays
    in float32 under autocast. Tests compare them.
    """
    dtype = torch.promote_types(p.dtype, torch.float32)
    with full_precision(p.device):
        return _MeanCosine.apply(p.to(dtype), z.detach().to(dtype))


class _MeanCosine(torch.autograd.Function):
    """With a = 1/(‖p‖‖z‖) and c = cos(p, z) per row: ∂/∂p = (a z − c p/‖p‖²) / N, two passes over [N, d]."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, z: Tensor) -> Tensor:
        p_norm = torch.linalg.vector_norm(p, dim=1).clamp_(min=1e-8)
        z_norm = torch.linalg.vector_norm(z, dim=1).clamp_(min=1e-8)
        scale = 1.0 / (p_norm * z_norm)
        cosine = torch.linalg.vecdot(p, z) * scale
        ctx.save_for_backward(p, z, scale, cosine / p_norm.square())
        return cosine.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        p, z, scale, pull = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: what was kept does not know where it comes from
            p_norm = torch.linalg.vector_norm(p, dim=1).clamp(min=1e-8)
            scale = 1.0 / (p_norm * torch.linalg.vector_norm(z, dim=1).clamp(min=1e-8))
            pull = torch.linalg.vecdot(p, z) * scale / p_norm.square()
        grad = grad / p.shape[0]
        return (z * (scale * grad)[:, None]).addcmul_(p, (pull * grad)[:, None], value=-1.0), None


def hidden_widths(widths: int | Sequence[int]) -> list[int]:
    """Widths of a predictor's hidden layers, one or several.

    Raises:
        ValueError: one of them is below 1.
    """
    return check_widths([widths] if isinstance(widths, int) else widths, "predictor_hidden")
