"""Weight regularizers of any network, for anyone's own training loop.

    werank = WERank(model, coefficient=1e-2)
    loss = loss + werank()

Every rank of a data-parallel job computes the same penalty, so that the averaged gradient is the right one: it needs no
factor of the world size. Weights sharded by FSDP2's ``fully_shard`` are brought together for the penalty, and the
gradient goes back to the shards: every rank must call. FSDP1, whose shards have no layers, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.core.precision import full_precision
from sslcollapse.core.registry import REGULARIZERS
from sslcollapse.core.types import Point
from sslcollapse.layers.map import Layer
from sslcollapse.nn.wrappers import check_count, check_model, layers_of, warn_of_unread
from sslcollapse.recipe.schema import Coefficient
from sslcollapse.regularizers.base import WeightPenalty
from sslcollapse.regularizers.coefficients import CoefficientFunction, resolve_coefficient
from sslcollapse.regularizers.orthogonality import DSOPenalty, SOPenalty, SRIPPenalty
from sslcollapse.regularizers.rank_floor import RankFloorController, RankRow, asked
from sslcollapse.regularizers.werank import GramSide, WERankPenalty


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
        SSLCollapseError: a network whose weights are nowhere as a whole (FSDP1, DeepSpeed's stage 3).
        ValueError: ``total_steps`` that are no whole number of at least 1.
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
        if total_steps is not None:
            check_count("total_steps", total_steps)
        self.layers: dict[str, Layer] = layers_of(model, layers)
        warn_of_unread(model, layers, type(self).__name__)
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
        total = torch.zeros((), dtype=torch.promote_types(first.dtype, torch.float32).to_real(), device=first.device)
        with full_precision(first.device):
            for name, value in self.penalty(active).items() if active else ():
                total = total + coefficients[name] * value.to(first.device)
        return total

    @torch.no_grad()
    def penalties(self) -> dict[str, Tensor]:
        """Layer → unweighted penalty, without gradients, whatever its coefficient; for logs."""
        return {name: value.detach() for name, value in self.penalty(self.layers).items()}

    def coefficients(self, step: int | None = None) -> dict[str, float]:
        """Layer → coefficient at a step; of one that follows the measured rank, as it is now.

        Raises:
            RecipeError: for a scheduled coefficient without a step.
        """
        controller = self._controller()
        if controller is not None:
            return controller(controller.step + 1)
        if step is None and _depends_on_step(self.penalty.coefficient):
            raise RecipeError(
                f"the coefficient of {type(self).__name__} depends on the step; call it with the number of the "
                "optimiser step, from 0: penalty(step)"
            )
        return self._at(step or 0)

    def observe(self, rows: Sequence[RankRow]) -> None:
        """Move a coefficient that follows the measured rank, by what ``CollapseMonitor.summary`` says.

        The monitor must watch the same network. The first call, best after the first training step, says what
        untrained ranks are; each later one moves every coefficient once. The argument ``every`` plays no role: this
        loop says when. In a data-parallel job use ``summary(all_reduce=True)``, which gives all ranks the same rows.

        Args:
            rows: of one summary, at a later step than the one before.

        Raises:
            RecipeError: a coefficient of another kind.
            RunError: a layer without a row, or rows of the same step as before.
        """
        controller = self._controller()
        if controller is None:
            raise RecipeError(f"the coefficient {self.penalty.coefficient!r} follows no measured rank; use rank_floor")
        found: dict[Point, RankRow] = {Point(row.kind, row.layer): row for row in rows}
        for point in asked({"": controller}):
            if point not in found:
                names = ", ".join(name for kind, name in found if kind == point.kind) or "none"
                raise RunError(
                    f"observe: there is no row of the {point.kind} of layer {point.name!r} (there are: {names}); give "
                    f"CollapseMonitor the network that {type(self).__name__} has, and its layers"
                )
        controller.update(rows[0].step, found)

    def state_dict(self) -> dict[str, Any]:
        """What to save with the network: the state of a coefficient that follows the measured rank, else nothing."""
        controller = self._controller()
        return {} if controller is None else controller.get_extra_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` gave.

        Raises:
            RunError: it was of another coefficient or of other layers.
        """
        controller = self._controller()
        if bool(state) != (controller is not None):
            raise RunError(
                f"the saved state of {type(self).__name__} is of another kind of coefficient than "
                f"{self.penalty.coefficient!r}; build it with the coefficient that it was saved with"
            )
        if controller is not None:
            controller.set_extra_state(dict(state))

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
        at = resolve_coefficient(coefficient, self.layers, self.total_steps or 0)
        if isinstance(at, RankFloorController) and any(
            p.kind == "feature" for part in at.points.values() for p in part
        ):
            raise RecipeError(
                f"per='pooled' with of='output': {type(self).__name__} cannot see which output is the representation; "
                "use of='weight' or per='layer'"
            )
        return at

    def _controller(self) -> RankFloorController | None:
        return self._at if isinstance(self._at, RankFloorController) else None

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_at"}
        return {**kept, "_at": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: value for name, value in state.items() if name != "_at"})
        self._at = self._resolved()
        self.load_state_dict(state["_at"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.layers)} layers, coefficient={self.penalty.coefficient!r})"


class WERank(AttachedPenalty):
    """WERank on a network of your own: Σ_l α_l ‖W_lᵀW_l − I‖_F, the paper's W being [in, out].

    Args:
        model: the network, or the same wrapped by DistributedDataParallel or ``torch.compile``. Give it the encoder: an
            exactly orthogonal projector behaves like none.
        coefficient: a number; ``{layer name or glob: number}``; ``dict(type="depth", ...)``;
            ``dict(type="schedule", ...)``, called with the step then: ``werank(step)``; or
            ``dict(type="rank_floor", ...)``, which ``werank.observe(monitor.summary())`` moves.
        layers: name or glob of the layers, or several of them.
        squared: penalise the squared norm.
        gram: ``"output"`` is the paper's [out, out] Gram, ``"input"`` the [in, in] one, ``"smaller"`` the smaller.
        total_steps: length of training, for a coefficient whose schedule ends there.

    Raises:
        LayerError: a glob matches nothing; the message lists the layers.
        RecipeError: a coefficient that is wrong or matches no layer.
        ValueError: a ``gram``, ``squared`` or ``total_steps`` that cannot be.

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
            "features are called with features: see sslcollapse.regularizers.variance_covariance"
        )
    return built


def _depends_on_step(coefficient: Any) -> bool:
    return isinstance(coefficient, Mapping) and coefficient.get("type", "depth") not in ("depth", "rank_floor")


def _depends_on_length(coefficient: Any) -> bool:
    """Whether a coefficient is relative to the length of training; assumed of those that other packages add."""
    if not _depends_on_step(coefficient):
        return False
    if coefficient["type"] != "schedule":
        return True
    ends = coefficient.get("stop") is not None or coefficient.get("schedule", "constant") == "constant"
    return not ends or _depends_on_length(coefficient.get("base"))
