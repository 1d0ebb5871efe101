"""Objectives that tell a sample's other view from all other samples: SimCLR, which is GRACE on graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from sslcollapse.core.distributed import Gather
from sslcollapse.core.precision import full_precision
from sslcollapse.core.types import Branch
from sslcollapse.nn.heads import Head
from sslcollapse.nn.init import check_samples
from sslcollapse.nn.moments import gradients_to_differentiate
from sslcollapse.nn.norm import ActivationName, NormName
from sslcollapse.objectives.base import Objective, check_projector, embeddings_of_two_views
from sslcollapse.recipe.schema import Above, Width

CHUNK_LOGITS = 1 << 21
"""Logits [anchors, keys] that are in memory at once on a CPU: 8 MiB in float32, which its caches hold."""
CHUNK_LOGITS_ACCELERATOR = 1 << 28
"""The same elsewhere: 1 GiB in float32; batches of up to 8,192 samples are one chunk."""

Similarity = Literal["cosine", "dot", "squared_distance"]
"""How alike two embeddings are: cos(a, b), a·b, or −‖a − b‖²/2; the last two see lengths."""


class SimCLR(Objective):
    """NT-Xent: the other view of a sample among both views of all other samples.

    Formula: −mean_i log( exp(s(z_i, z_i⁺)/τ) / Σ_{j≠i} exp(s(z_i, z_j)/τ) ), over the 2N embeddings of both
    views, z_i⁺ being the other view of the sample of z_i, and s the cosine.

    With ``similarity="dot"`` or ``"squared_distance"`` embeddings are not normalised. The theory of Jing et al. 2022
    (eq. 2) has the latter; their toy experiments' code has the former, with the N − 1 negatives of the other view.

    With ``projector=[128, 128], norm="none", activation="elu", temperature=0.4`` on a graph it is GRACE, whose
    negatives within and between views are the same 2N − 2.

    Args:
        temperature: τ.
        projector: width of each linear layer of the projector; empty for none.
        norm: after each layer of the projector but the last.
        activation: after each layer of the projector but the last.
        last_norm: whether the projector's last layer is normalised as well (SimCLR's code) or not (its paper).
        similarity: s: ``"cosine"``, ``"dot"`` (a·b) or ``"squared_distance"`` (−‖a − b‖²/2).

    Shapes:
        z of each online branch: [N, d].

    Raises:
        ValueError: for a temperature that is not positive, a width below 1, or an unknown similarity.
        RecipeError: for other than two views, or a single sample.

    Source: Chen et al. 2020 (SimCLR), eq. 1; Zhu et al. 2020 (GRACE), eq. 1 and 2; Jing et al. 2022.

    Each rank has its own samples as anchors and those of all ranks as keys; the mean of the ranks' gradients is the
    joint batch's. lightly's ``NTXentLoss`` with gathering is exact too, but keeps several [2N, 2N] matrices for the
    backward pass (of the 20,000 nodes of a graph, 6.4 GB each), selects from them by a boolean mask, which waits for
    the device, computes in half precision under autocast, and fixes at construction whether it gathers, which here
    depends on the batch. Tests compare with it.
    """

    couples_batch = True

    def __init__(
        self,
        *,
        temperature: Annotated[float, Above(0)] = 0.5,
        projector: Sequence[Width] = (2048, 128),
        norm: NormName = "batch",
        activation: ActivationName = "relu",
        last_norm: bool = False,
        similarity: Similarity = "cosine",
    ) -> None:
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature must be positive, got {temperature}")
        if similarity not in get_args(Similarity):
            raise ValueError(f"similarity must be one of {', '.join(get_args(Similarity))}, got {similarity!r}")
        self.temperature = temperature
        self.similarity: Similarity = similarity
        self.widths = check_projector(projector)
        self.norm, self.activation, self.last_norm = norm, activation, last_norm

    def projector(self, in_dim: int) -> nn.Module | None:
        """Linear, normalisation and activation, repeated, then Linear."""
        if not self.widths:
            return None
        return Head(in_dim, *self.widths, norm=self.norm, activation=self.activation, last_norm=self.last_norm)

    def forward(
        self, online: Sequence[Branch], target: Sequence[Branch] | None, gather: Gather
    ) -> Mapping[str, Tensor]:
        """Two online branches → ``{"simclr": loss}``."""
        z1, z2 = embeddings_of_two_views("simclr", online)
        check_samples("simclr", len(z1) * gather.ranks)
        return {"simclr": nt_xent(z1, z2, self.temperature, gather, self.similarity)}


def nt_xent(z1: Tensor, z2: Tensor, temperature: float, gather: Gather, similarity: Similarity = "cosine") -> Tensor:
    """NT-Xent of this rank's anchors against the keys of all ranks: [N, d], [N, d] → scalar, float32 or wider."""
    dtype = torch.promote_types(z1.dtype, torch.float32)
    with full_precision(z1.device):
        anchors = torch.cat([z1, z2]).to(dtype)  # [2N, d], views one after the other
        if similarity == "cosine":
            anchors = normalize(anchors, dim=1)
        keys = gather(anchors)  # [W·2N, d]
        if similarity == "squared_distance":
            # −‖a − k‖²/2 = a·k − ‖k‖²/2 but for −‖a‖²/2, which a softmax over keys does not see.
            anchors = torch.cat([anchors, torch.ones_like(anchors[:, :1])], dim=1)  # [2N, d + 1]
            keys = torch.cat([keys, -0.5 * keys.square().sum(1, keepdim=True)], dim=1)
        return _NTXent.apply(anchors, keys, temperature, len(anchors) * gather.rank)


class _NTXent(torch.autograd.Function):
    """Loss and gradients in one pass over chunks of anchors; no [2N, W·2N] matrix is kept.

    With p_ij the softmax over the keys j ≠ i: ∂/∂a_i = (Σ_j p_ij k_j − k_i⁺) / (2N τ) and
    ∂/∂k_j = (Σ_i p_ij a_i − Σ_{i: i⁺ = j} a_i) / (2N τ). The gradients are as small as their inputs, so that they
    are made while a chunk's logits are at hand and wait for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, keys: Tensor, temperature: float, start: int) -> Tensor:
        count, wanted = len(anchors), any(ctx.needs_input_grad)
        own = keys[start : start + count]  # the anchors themselves, as keys
        partners = own.roll(count // 2, 0)  # the other view of each
        places = torch.arange(start, start + count, device=keys.device).roll(count // 2)[:, None]  # theirs in keys
        loss = anchors.new_zeros(())
        if wanted:
            to_anchors, to_keys = torch.empty_like(anchors), torch.zeros_like(keys)
        budget = CHUNK_LOGITS if anchors.device.type == "cpu" else CHUNK_LOGITS_ACCELERATOR
        height = max(1, budget // len(keys))
        for top in range(0, count, height):
            chunk = anchors[top : top + height]
            logits = (chunk / temperature) @ keys.t()  # [chunk, W·2N]
            logits.diagonal(start + top)[: len(chunk)].fill_(-math.inf)  # no sample is its own negative
            logits.sub_(logits.amax(1, keepdim=True))
            positives = logits.gather(1, places[top : top + height])
            weights = logits.exp_()
            total = weights.sum(1, keepdim=True)
            loss += (total.log() - positives).sum()  # of small numbers, however large the logits are
            if wanted:
                torch.div(weights @ keys, total, out=to_anchors[top : top + height])
                to_keys.addmm_(weights.t(), chunk / total)
        if wanted:
            to_anchors -= partners
            to_keys[start : start + count] -= anchors.roll(count // 2, 0)
            scale = 1.0 / (count * temperature)
            ctx.temperature, ctx.start = temperature, start
            ctx.save_for_backward(to_anchors.mul_(scale), to_keys.mul_(scale), anchors, keys)
        return loss / count

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_anchors, to_keys, anchors, keys = ctx.saved_tensors
        if torch.is_grad_enabled():

            def plain(a: Tensor, k: Tensor) -> Tensor:
                return _plain_nt_xent(a, k, ctx.temperature, ctx.start)

            to_anchors, to_keys = gradients_to_differentiate(plain, grad, anchors, keys)
            return to_anchors, to_keys, None, None
        return grad * to_anchors, grad * to_keys, None, None


def _plain_nt_xent(anchors: Tensor, keys: Tensor, temperature: float, start: int) -> Tensor:
    """The same in one piece, with all [2N, W·2N] logits in memory."""
    places = torch.arange(start, start + len(anchors), device=keys.device)
    own = one_hot(places, len(keys)).bool()
    logits = (anchors / temperature @ keys.t()).masked_fill(own, -math.inf)
    return cross_entropy(logits, places.roll(len(anchors) // 2))
