"""Weight regularizers of any network, for anyone's own training loop.

    werank = WERank(model, coefficient=1e-2)
    loss = loss + werank()

Every rank of a data-parallel job computes the same penalty, so that the averaged gradient is the right one: it needs no
factor of the world size. Sharded parameters (FSDP) are not supported, since a weight is then nowhere as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.errors import RecipeError
from sslcollapse.layers import Layer
from sslcollapse.registry import REGULARIZERS
from sslcollapse.regularizers.base import WeightPenalty
from sslcollapse.regularizers.coefficients import CoefficientFunction, resolve_coefficient
from sslcollapse.regularizers.orthogonality import DSOPenalty, SOPenalty, SRIPPenalty
from sslcollapse.regularizers.werank import GramSide, WERankPenalty
from sslcollapse.spec import Coefficient
from sslcollapse.wrappers import check_model, layers_of


class AttachedPenalty:
    """A weight penalty of one network: called, it gives the weighted sum over layers, to be added to the loss.

    Formula: Σ_l α_l(step) · penalty(W_l).

    It is no ``nn.Module`` and owns no parameters: as an attribute of the network it adds nothing to its state dict.
    The layers are those that the network has when this is built; build it after layers are added or replaced.

    Args:
        model: the network, or the same wrapped by DistributedDataParallel or ``torch.compile``.
        penalty: a ``WeightPenalty``, the name of a registered one (``"srip"``), or ``dict(type="srip", ...)`` with its
            arguments. Its ``networks`` play no role here.
        layers: name or glob of the layers, or several of them.
        total_steps: length of training, for a coefficient whose schedule ends there.

    Attributes:
        layers: name → ``Layer`` of what is penalised, ordered by depth.

    Raises:
        LayerError: a glob matches nothing; the message lists the layers.
        RecipeError: a coefficient that is wrong, that matches no layer, or that needs ``total_steps``; a regularizer of
            features.
    """

    def __init__(
        self,
        model: nn.Module,
        penalty: WeightPenalty | str | Mapping[str, Any],
        *,
        layers: str | Sequence[str] = "*",
        total_steps: int | None = None,
    ) -> None:
        check_model(model, type(self).__name__)
        self.layers: dict[str, Layer] = layers_of(model, layers)
        self.penalty = _penalty(penalty)
        self.total_steps = total_steps
        self._at = self._resolved()

    def __call__(self, step: int | None = None) -> Tensor:
        """The weighted penalty, a scalar in float32 or wider, with gradients; 0 where every coefficient is.

        Args:
            step: optimiser step from 0; needed where the coefficient depends on it.

        Raises:
            RecipeError: for a scheduled coefficient without a step.
        """
        coefficients = self.coefficients(step)
        active = {name: self.layers[name] for name, value in coefficients.items() if value}
        first = next(iter(self.layers.values())).parameter
        total = torch.zeros((), dtype=torch.promote_types(first.dtype, torch.float32), device=first.device)
        with torch.autocast(first.device.type, enabled=False):
            for name, value in self.penalty(active).items() if active else ():
                total = total + coefficients[name] * value.to(first.device)
        return total

    @torch.no_grad()
    def penalties(self) -> dict[str, Tensor]:
        """Layer → unweighted penalty, without gradients, whatever its coefficient; for logs."""
        return {name: value.detach() for name, value in self.penalty(self.layers).items()}

    def coefficients(self, step: int | None = None) -> dict[str, float]:
        """Layer → coefficient at a step.

        Raises:
            RecipeError: for a scheduled coefficient without a step.
        """
        if step is None and _depends_on_step(self.penalty.coefficient):
            raise RecipeError(
                f"the coefficient of {type(self).__name__} depends on the step; call it with the number of the "
                "optimiser step, from 0: penalty(step)"
            )
        return self._at(step or 0)

    def floors(self) -> dict[str, float]:
        """Layer → least value that its penalty can have."""
        return {name: self.penalty.floor(layer) for name, layer in self.layers.items()}

    def _resolved(self) -> CoefficientFunction:
        coefficient = self.penalty.coefficient
        if self.total_steps is None and _depends_on_length(coefficient):
            raise RecipeError(
                f"the schedule of {type(self).__name__}'s coefficient ends with training; say when that is with "
                "total_steps=, or give the schedule a 'stop'"
            )
        # A coefficient that does not depend on the length of training never looks at it.
        return resolve_coefficient(coefficient, self.layers, self.total_steps or 0)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_at"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._at = self._resolved()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.layers)} layers, coefficient={self.penalty.coefficient!r})"


class WERank(AttachedPenalty):
    """WERank on a network of your own: Σ_l α_l ‖W_lᵀW_l − I‖_F, the paper's W being [in, out].

    Args:
        model: the network, or the same wrapped by DistributedDataParallel or ``torch.compile``. Give it the encoder: an
            exactly orthogonal projector behaves like none.
        coefficient: a number; ``{layer name or glob: number}``; ``dict(type="depth", ...)``;
            ``dict(type="schedule", ...)``, called with the step then: ``werank(step)``.
        layers: name or glob of the layers, or several of them.
        squared: penalise the squared norm.
        gram: ``"output"`` is the paper's [out, out] Gram, ``"input"`` the [in, in] one, ``"smaller"`` the smaller.
        total_steps: length of training, for a coefficient whose schedule ends there.

    Raises:
        LayerError: a glob matches nothing; the message lists the layers.
        RecipeError: a coefficient that is wrong or matches no layer.

    Source: Saheb Pasand et al. 2024, arXiv 2402.09586.
    """

    def __init__(
        self,
        model: nn.Module,
        coefficient: Coefficient = 1e-2,
        layers: str | Sequence[str] = "*",
        *,
        squared: bool = False,
        gram: GramSide = "output",
        total_steps: int | None = None,
    ) -> None:
        penalty = WERankPenalty(coefficient=coefficient, squared=squared, gram=gram)
        super().__init__(model, penalty, layers=layers, total_steps=total_steps)


class SO(AttachedPenalty):
    """Soft orthogonality on a network of your own: Σ_l α_l ‖W_lᵀW_l − I‖²_F. The arguments are those of ``WERank``.

    Source: Bansal et al. 2018.
    """

    def __init__(
        self,
        model: nn.Module,
        coefficient: Coefficient = 1e-6,
        layers: str | Sequence[str] = "*",
        *,
        gram: GramSide = "output",
        total_steps: int | None = None,
    ) -> None:
        super().__init__(model, SOPenalty(coefficient=coefficient, gram=gram), layers=layers, total_steps=total_steps)


class DSO(AttachedPenalty):
    """Double soft orthogonality on a network of your own: Σ_l α_l (‖W_lᵀW_l − I‖²_F + ‖W_lW_lᵀ − I‖²_F).

    The arguments are those of ``WERank``.

    Source: Bansal et al. 2018.
    """

    def __init__(
        self,
        model: nn.Module,
        coefficient: Coefficient = 1e-6,
        layers: str | Sequence[str] = "*",
        *,
        total_steps: int | None = None,
    ) -> None:
        super().__init__(model, DSOPenalty(coefficient=coefficient), layers=layers, total_steps=total_steps)


class SRIP(AttachedPenalty):
    """Spectral restricted isometry on a network of your own: Σ_l α_l · largest |eigenvalue| of W_lᵀW_l − I.

    ``iterations`` of the power method estimate it; the other arguments are those of ``WERank``.

    Source: Bansal et al. 2018.
    """

    def __init__(
        self,
        model: nn.Module,
        coefficient: Coefficient = 1e-4,
        layers: str | Sequence[str] = "*",
        *,
        iterations: int = 2,
        gram: GramSide = "smaller",
        total_steps: int | None = None,
    ) -> None:
        penalty = SRIPPenalty(coefficient=coefficient, iterations=iterations, gram=gram)
        super().__init__(model, penalty, layers=layers, total_steps=total_steps)


def _penalty(given: WeightPenalty | str | Mapping[str, Any]) -> WeightPenalty:
    built = given
    if isinstance(given, (str, Mapping)):
        built = REGULARIZERS.build({"type": given} if isinstance(given, str) else given)
    if not isinstance(built, WeightPenalty):
        raise RecipeError(
            f"only penalties on weights can be attached to a network, and {type(built).__name__} is none; penalties on "
            "features are called with features: see sslcollapse.regularizers.features"
        )
    return built


def _depends_on_step(coefficient: Any) -> bool:
    return isinstance(coefficient, Mapping) and coefficient.get("type", "depth") != "depth"


def _depends_on_length(coefficient: Any) -> bool:
    """Whether a coefficient is relative to the length of training; assumed of those that other packages add."""
    if not _depends_on_step(coefficient):
        return False
    if coefficient["type"] != "schedule":
        return True
    ends = coefficient.get("stop") is not None or coefficient.get("schedule", "constant") == "constant"
    return not ends or _depends_on_length(coefficient.get("base"))
