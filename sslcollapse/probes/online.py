"""A classifier trained beside the encoder, to watch representations while they are learnt."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.nn.utils import skip_init

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.precision import full_precision, precisely

UNLABELLED = -1


class OnlineProbe(nn.Module):
    """A linear layer on detached representations: it sends no gradient to the encoder.

    Weights start at zero and draw no random numbers, so neither the encoder's initial weights nor its
    views depend on whether there is a probe. It computes in the precision of its own weights (float32),
    outside autocast. Rows with label -1 are unlabelled and left out.

    Args:
        in_dim: width d of the representation.
        num_classes: C.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(self, in_dim: int, num_classes: int) -> None:
        super().__init__()
        for name, number in (("in_dim", in_dim), ("num_classes", num_classes)):
            if number < 1:
                raise ValueError(f"{name} must be >= 1, got {number}")
        self.linear = skip_init(nn.Linear, in_dim, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start again, at zero."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy, to be minimised, and accuracy, over the labelled rows (0 where there is none).

        Shapes:
            h: [N, d] or anything that flattens to it row by row; labels: [N] classes, or -1.
            result: ``loss`` and ``accuracy``, scalars; only the loss has a gradient.

        Raises:
            RecipeError: for labels that are not one class a row.
        """
        if labels.dim() != 1:
            raise RecipeError(
                f"the online probe needs one class a row, got labels of shape {tuple(labels.shape)}: "
                f"leave it out for multi-label sets"
            )
        with full_precision(h.device):
            rows = h.detach().flatten(1).to(self.linear.weight.dtype)
            logits = precisely(linear, rows, self.linear.weight, self.linear.bias)  # [N, C]
            labelled = (labels != UNLABELLED).sum().clamp(min=1)
            loss = cross_entropy(logits, labels, reduction="sum", ignore_index=UNLABELLED) / labelled
        # At -1 no class is predicted, so an unlabelled row is never a hit.
        accuracy = (logits.detach().argmax(1) == labels).sum() / labelled
        return {"loss": loss, "accuracy": accuracy}
