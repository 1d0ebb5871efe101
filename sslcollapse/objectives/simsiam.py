"""SimSiam: predict the other view's embedding, without a target network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.types import Branch
from sslcollapse.nn.heads import Head
from sslcollapse.nn.norm import ActivationName, NormName
from sslcollapse.objectives.base import Objective, check_projector
from sslcollapse.objectives.byol import crossed_agreement, hidden_widths
from sslcollapse.recipe.schema import Width


class SimSiam(Objective):
    """Predict the online embedding of the other view, held constant; loss 1 − [cos(p₁, z₂) + cos(p₂, z₁)] / 2.

    No target network: no gradient flows to the embeddings that are predicted.

    Args:
        projector: width of each linear layer of the projector; empty for none.
        predictor_hidden: width of the predictor's bottleneck, or widths of several hidden layers.
        norm: after each layer of the projector, the last without scale and shift, and each hidden one of the
            predictor.
        activation: after each hidden layer of both heads.

    Shapes:
        p and z of each online branch: [N, d].

    Raises:
        ValueError: for a width below 1.
        RecipeError: for other than two views.

    Source: Chen & He 2021, eq. 1 to 4, plus 1.
    """

    couples_batch = False

    def __init__(
        self,
        *,
        projector: Sequence[Width] = (2048, 2048, 2048),
        predictor_hidden: Width | Sequence[Width] = 512,
        norm: NormName = "batch",
        activation: ActivationName = "relu",
    ) -> None:
        super().__init__()
        self.widths = check_projector(projector)
        self.predictor_hidden = hidden_widths(predictor_hidden)
        self.norm, self.activation = norm, activation

    def projector(self, in_dim: int) -> nn.Module | None:
        """Linear, normalisation and activation, repeated, then Linear and normalisation."""
        if not self.widths:
            return None
        return Head(in_dim, *self.widths, norm=self.norm, activation=self.activation, last_norm=True, last_affine=False)

    def predictor(self, in_dim: int) -> nn.Module:
        """Linear, normalisation, activation, Linear."""
        return Head(in_dim, *self.predictor_hidden, in_dim, norm=self.norm, activation=self.activation)

    def forward(
        self, online: Sequence[Branch], target: Sequence[Branch] | None, gather: Gather
    ) -> Mapping[str, Tensor]:
        """Two online branches → ``{"simsiam": loss}``, in [0, 2]."""
        return {"simsiam": 1.0 - 0.5 * crossed_agreement("simsiam", online, online)}
