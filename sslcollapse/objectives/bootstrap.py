"""Objectives that predict a target network's output: BGRL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sslcollapse.distributed import Gather
from sslcollapse.encoders.heads import Head
from sslcollapse.objectives.base import Objective
from sslcollapse.schedules import ema_momentum
from sslcollapse.types import Branch


class BGRL(Objective):
    """Predict the target's representation of the other view; loss 2 − cos(p₁, h′₂) − cos(p₂, h′₁).

    Means are over nodes. The target has the encoder's shape and, as in the authors' code, its own
    initialisation, follows by an exponential moving average over parameters only (buffers such as
    BatchNorm's running statistics are its own), and runs in train mode.

    Args:
        predictor_hidden: width of the predictor's hidden layer (Linear, PReLU, Linear, no BatchNorm).
        momentum: EMA momentum at step 0.
        momentum_schedule: ``"cosine"`` raises it to 1 over training; ``"constant"`` keeps it.
        target_initialization: ``"own"`` (the authors' code) or ``"copy"`` (of the online encoder, as BYOL).

    Shapes:
        p of each online branch and z of each target branch: [N, d].

    Raises:
        ValueError: for a momentum outside [0, 1] or a width below 1.

    Source: Thakoor et al., "Large-Scale Representation Learning on Graphs via Bootstrapping", ICLR 2022, eq. 3.
    """

    needs_target = True

    def __init__(
        self,
        *,
        predictor_hidden: int = 512,
        momentum: float = 0.99,
        momentum_schedule: Literal["cosine", "constant"] = "cosine",
        target_initialization: Literal["own", "copy"] = "own",
    ) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        if predictor_hidden < 1:
            raise ValueError(f"predictor_hidden must be at least 1, got {predictor_hidden}")
        self.predictor_hidden = predictor_hidden
        self.momentum = momentum
        self.momentum_schedule = momentum_schedule
        self.target_initialization = target_initialization

    def predictor(self, in_dim: int) -> nn.Module:
        """Linear-PReLU-Linear without BatchNorm."""
        return Head(in_dim, self.predictor_hidden, in_dim)

    def momentum_at(self, step: int, total: int) -> float:
        """EMA momentum of the target after this optimiser step."""
        return self.momentum if self.momentum_schedule == "constant" else ema_momentum(step, total, self.momentum)

    def forward(
        self, online: Sequence[Branch], target: Sequence[Branch] | None, gather: Gather
    ) -> Mapping[str, Tensor]:
        """Two online and two target branches → ``{"bgrl": loss}``, in [0, 4]."""
        predictions = [branch.p for branch in online if branch.p is not None]
        targets = [branch.z for branch in target or ()]
        if len(predictions) != 2 or len(targets) != 2:
            raise ValueError(f"BGRL needs two predictions and two targets, got {len(predictions)} and {len(targets)}")
        agreement = mean_cosine(predictions[0], targets[1]) + mean_cosine(predictions[1], targets[0])
        return {"bgrl": 2.0 - agreement}


def mean_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Mean over rows of cos(p, z), in float32 or wider: [N, d], [N, d] → scalar. No gradient goes to z.

    Norms are bounded below by 1e-8, as in ``torch.nn.functional.cosine_similarity``.
    """
    dtype = torch.promote_types(p.dtype, torch.float32)
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
        grad = grad / p.shape[0]
        return (z * (scale * grad)[:, None]).addcmul_(p, (pull * grad)[:, None], value=-1.0), None
