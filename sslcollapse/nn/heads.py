"""Projector and predictor heads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.errors import in_words, suggest
from sslcollapse.nn.init import check_arguments, check_norm_momentum, check_widths
from sslcollapse.nn.norm import ActivationName, NormAct, NormName


class Head(nn.Module):
    """Linear layers with a normalisation and an activation between them: [N, in_dim] → [N, widths[-1]].

    Args:
        in_dim: input width.
        widths: of every linear layer's output; one is a linear map, two have one hidden layer.
        norm: after each layer but the last; ``"none"`` for BGRL's predictor, ``"batch"`` for BYOL's heads.
        activation: after each layer but the last.
        norm_momentum: BatchNorm's momentum in torch's convention.
        last_norm: whether the last layer is normalised too.
        last_affine: whether that last normalisation has a scale and a shift.
        last_bias: whether the last layer has a bias.

    Raises:
        ValueError: for a width below 1, for none, or for a last normalisation where ``norm`` is no such layer.

    A layer before a BatchNorm has no bias, since subtracting the mean removes it. lightly's ``ProjectionHead`` has
    the same layers and biases, but neither ``out_dim`` nor ``reset_parameters``, and no choice of normalisation
    or activation by name.
    """

    def __init__(
        self,
        in_dim: int,
        *widths: int,
        norm: NormName = "none",
        activation: ActivationName = "prelu",
        norm_momentum: float = 0.1,
        last_norm: bool = False,
        last_affine: bool = True,
        last_bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = check_widths(widths, "widths")[:-1]
        self.out_dim = widths[-1]
        biases = [norm != "batch"] * len(hidden) + [last_bias and not (last_norm and norm == "batch")]
        pairs = pairwise([in_dim, *widths])
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for (a, b), bias in zip(pairs, biases, strict=True))
        self.norm_acts = nn.ModuleList(NormAct(width, norm, norm_momentum, activation) for width in hidden)
        self.last_norm = _last_norm(norm, self.out_dim, last_affine, norm_momentum) if last_norm else nn.Identity()

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        for module in (*self.layers, *self.norm_acts, self.last_norm):
            if not isinstance(module, nn.Identity):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_dim] → [N, out_dim]."""
        for layer, norm_act in zip(self.layers, self.norm_acts, strict=False):
            x = norm_act(layer(x))
        return self.last_norm(self.layers[-1](x))


class LightlyHead(nn.Module):
    """A projection head of lightly: [N, in_dim] → [N, out_dim].

    Args:
        in_dim: input width.
        name: class of ``lightly.models.modules.heads``.
        widths: ``hidden_dim`` and ``output_dim``; None is what the head has by default.
        arguments: others.

    Raises:
        ValueError: for a head that lightly does not have, or arguments that it refuses.
    """

    def __init__(self, in_dim: int, name: str, widths: Sequence[int] | None, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        from lightly.models.modules import heads

        base = heads.ProjectionHead
        known = [n for n, c in vars(heads).items() if inspect.isclass(c) and issubclass(c, base) and c is not base]
        if name not in known:
            raise ValueError(
                f"head: lightly has no head {name!r}{suggest(name, known, 0.4)} (known: {', '.join(known)})"
            )
        self.in_dim, self.name, self.arguments = in_dim, name, dict(arguments)
        if widths is not None:
            if len(widths) != 2:
                raise ValueError(f"projector: of {name} is its hidden_dim and its output_dim, got {list(widths)}")
            self.arguments |= {"hidden_dim": widths[0], "output_dim": widths[1]}
        make: Callable[..., Any] = getattr(heads, name)
        check_arguments("head_arguments", name, make, self.arguments, {"input_dim": "is the encoder's width"})
        self._make = make
        self.head = self._built()
        with torch.no_grad(), torch.device("meta"):  # what it returns is not always its output_dim
            self.out_dim = int(self._built()(torch.zeros(2, in_dim)).shape[1])

    def reset_parameters(self) -> None:
        """Initialise all layers again, as lightly does."""
        self.head.load_state_dict(self._built().state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_dim] → [N, out_dim]."""
        return self.head(x)

    def _built(self) -> nn.Module:
        try:
            return self._make(input_dim=self.in_dim, **self.arguments)
        except Exception as error:
            raise ValueError(f"head: {self.name} refuses {self.arguments}: {in_words(error)}") from error


def _last_norm(norm: NormName, dim: int, affine: bool, momentum: float) -> nn.Module:
    """A normalisation without activation; ``"none"`` asks for no normalisation anywhere, the last place included."""
    if norm == "batch":
        return nn.BatchNorm1d(dim, momentum=check_norm_momentum(momentum), affine=affine)
    if norm == "layer":
        return nn.LayerNorm(dim, elementwise_affine=affine)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm of a head's last layer must be 'batch', 'layer' or 'none', got {norm!r}")
