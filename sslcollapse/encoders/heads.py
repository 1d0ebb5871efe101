"""Projector and predictor heads."""

from __future__ import annotations

from torch import Tensor, nn

from sslcollapse.encoders.norm import ActivationName, NormAct, NormName


class Head(nn.Module):
    """Linear, normalisation, activation, Linear: [N, in_dim] → [N, out_dim].

    Args:
        in_dim: input width.
        hidden: width of the hidden layer.
        out_dim: output width.
        norm: of the hidden layer; ``"none"`` for BGRL's predictor, ``"batch"`` for BYOL's heads.
        activation: of the hidden layer.
    """

    def __init__(
        self,
        in_dim: int,
        hidden: int,
        out_dim: int,
        *,
        norm: NormName = "none",
        activation: ActivationName = "prelu",
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(in_dim, hidden), nn.Linear(hidden, out_dim)])
        self.norm_act = NormAct(hidden, norm, norm_momentum, activation)
        self.out_dim = out_dim

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        for module in (*self.layers, self.norm_act):
            module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_dim] → [N, out_dim]."""
        return self.layers[1](self.norm_act(self.layers[0](x)))
