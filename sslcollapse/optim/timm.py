"""Adapter to the optimizers of timm, and LARS, which is one of them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import nn

from sslcollapse.core.errors import RecipeError, in_words, suggest
from sslcollapse.core.schedules import ScheduleName
from sslcollapse.layers.map import HEADS
from sslcollapse.nn.init import check_arguments
from sslcollapse.optim.base import OptimizerSpec, check_momentum, check_nesterov
from sslcollapse.recipe.check import quote
from sslcollapse.recipe.schema import AtLeast, Distinct, Momentum

OURS = {
    "params": "are the trainable parameters of the networks",
    "lr": "is an argument of the optimizer itself",
    "weight_decay": "is an argument of the optimizer itself",
    "adamw_lr": "does not follow the schedule; use fallback_lr_scale",
    "conv_mode": "is convolutions='flatten' or 'batched'",
}
"""Arguments of timm's optimizers that are not given in ``arguments``, and why."""

REFUSED = {
    "adahessian": "needs second derivatives, for which a step here keeps no graph",
    "kron": "draws random numbers that no checkpoint holds, so that a resumed run would be another one",
}
"""Names of timm's optimizers (without a letter for a variant) → why they cannot be used."""


class TimmOptimizer(OptimizerSpec):
    """Any optimizer of timm by name (Muon, LAMB, LARS, Adan, Lion and others), with warm-up and decay by the step.

    The learning rate is set at every step, for all groups. An optimizer that adapts the step of a parameter to its
    length only where it has weight decay (LARS, LAMB) adapts here all parameters but the vectors that
    ``exclude_norm_and_bias`` leaves out, whatever the decay; ``arguments=dict(always_adapt=False)`` is timm's way.

    Muon replaces the momentum of a matrix by the nearest (semi-)orthogonal one, by a Newton-Schulz iteration. Vectors,
    and matrices with a side below 4 or sides of a ratio above 128, get AdamW instead, with the learning rate times
    ``arguments=dict(fallback_lr_scale=1.0)``. By default lr is scaled so that updates are as long as AdamW's
    (``adjust_lr_fn="match_rms_adamw"``), and AdamW's learning rates are the right ones for both.

    Args:
        name: timm's name, e.g. ``"muon"``; ``timm.optim.list_optimizers()`` has all.
        lr: learning rate at the end of warm-up.
        weight_decay: decoupled from the gradient or not, as the optimizer has it.
        arguments: the optimizer's own, e.g. ``dict(momentum=0.9)``. The momentum is by default the optimizer's own, and
            0.9 where it has 0, which is what timm does.
        warmup_steps: steps of linear warm-up from 0.
        schedule: ``"cosine"`` or ``"linear"`` to 0 at the end of training, or ``"constant"``.
        exclude_norm_and_bias: whether biases and normalisations get no weight decay, as timm has it.
        decay_regularized: whether matrices with a non-zero regularizer coefficient get weight decay too, as for
            ``adamw``.
        convolutions: of Muon, what a kernel [out, in, h, w] is: ``"flatten"``, one matrix [out, in·h·w] (the default,
            and what the layer map has); ``"batched"``, a matrix [out, in] at each of the h·w places, scaled by
            1/√(h·w); or ``"adamw"``, none.
        fallback: of Muon, layers that get AdamW instead, as names or globs of the layer map, and ``"first"`` and
            ``"last"`` for the encoder's first layer and for the last one of all (of the predictor, else of the
            projector, else of the encoder). By default none does: Muon's author has AdamW on the first and last layers
            of language models and classifiers, which are embeddings of tokens and logits.
        compute: of Muon, the type of its iteration. ``"bfloat16"`` is timm's and the default. ``"float32"`` rounds
            less, and is faster on a CPU without bfloat16 instructions.

    Raises:
        ValueError: for an optimizer that timm does not have or that cannot be used here, arguments that it refuses, or
            Muon's of another one.
        RecipeError: for a name in ``fallback`` that is no layer's.

    Source: Jordan et al. 2024 (Muon); the optimizers' own docstrings in ``timm.optim``.
    """

    def __init__(
        self,
        *,
        name: str,
        lr: Annotated[float, AtLeast(0)],
        weight_decay: Annotated[float, AtLeast(0)] = 0.0,
        arguments: Mapping[str, Any] | None = None,
        warmup_steps: Annotated[int, AtLeast(0)] = 0,
        schedule: ScheduleName = "cosine",
        exclude_norm_and_bias: bool = True,
        decay_regularized: bool = True,
        convolutions: Literal["flatten", "batched", "adamw"] | None = None,
        fallback: Annotated[Sequence[str], Distinct()] = (),
        compute: Literal["bfloat16", "float32"] | None = None,
    ) -> None:
        super().__init__(
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            schedule=schedule,
            exclude_norm_and_bias=exclude_norm_and_bias,
            decay_regularized=decay_regularized,
        )
        self.name, self.fallback = name, tuple(fallback)
        optimizer = _class_of(name)
        self.arguments = dict(arguments or {})
        check_arguments("arguments", f"timm's {name}", optimizer, self.arguments, OURS)
        takes = inspect.signature(optimizer).parameters
        self.is_muon, self.can_adapt = "conv_mode" in takes, "always_adapt" in takes
        for argument, value in (("convolutions", convolutions), ("fallback", self.fallback), ("compute", compute)):
            if value and not self.is_muon:
                raise ValueError(f"{argument}: is of Muon, got name={name!r}; leave it out")
        self.convolutions, self.compute = convolutions or "flatten", compute or "bfloat16"
        if "momentum" in takes and takes["momentum"].default:  # which timm's factory would replace by 0.9
            self.arguments.setdefault("momentum", takes["momentum"].default)
        if self.convolutions != "adamw" and self.is_muon:
            self.arguments["conv_mode"] = self.convolutions
        self._create([{"params": [nn.Parameter(torch.zeros(4, 4))]}])  # refuses arguments before data are read

    def build(self, module: Any) -> torch.optim.Optimizer:
        """The optimizer over the module's trainable parameters."""
        groups = self.groups(module)
        if self.can_adapt and "always_adapt" not in self.arguments:
            for group in groups:
                group["always_adapt"] = not group["excluded"]
        if self.is_muon:
            groups = _parted(groups, self._fallbacks(module))
        optimizer = self._create(groups)
        if self.is_muon and self.compute != "bfloat16":
            step = optimizer.step

            def in_float32(closure: Any = None) -> Any:
                with _newton_schulz_in(torch.float32):
                    return step(closure)

            optimizer.step = in_float32  # type: ignore[method-assign]
        return optimizer

    def _fallbacks(self, module: Any) -> set[nn.Parameter]:
        """Parameters that get AdamW in place of Muon."""
        chosen = {p for p in module.parameters() if p.dim() > 2} if self.convolutions == "adamw" else set()
        for name in self.fallback:
            found = _named(name, module.layers)
            if not found:
                known = ["first", "last", *module.layers]
                raise RecipeError(
                    f"optim.fallback: no layer is named or matched by {name!r}{suggest(name, known)} "
                    f"(known: {', '.join(known)})"
                )
            chosen |= {layer.parameter for layer in found}
        return chosen

    def _create(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        from timm.optim import create_optimizer_v2

        try:
            return create_optimizer_v2(groups, self.name, lr=self.lr, weight_decay=self.weight_decay, **self.arguments)
        except Exception as error:  # they check their arguments in many ways, some by failing
            raise ValueError(
                f"arguments: timm's {self.name} refuses {quote(self.arguments)}: {in_words(error)}"
            ) from error


class LARS(TimmOptimizer):
    """LARS (You et al. 2017): layer-wise adaptive rates for large batches, with warm-up and decay.

    Formula: λ = η ‖w‖ / (‖g‖ + β ‖w‖) for each parameter; v ← m v + λ (g + β w); w ← w − lr v. The learning rate
    multiplies v, not what enters it, as in torch's SGD. Where w or g is zero, λ = 1.

    It is ``timm`` with ``name="lars"``, under the names of arguments that solo-learn's settings have.

    Args:
        lr: learning rate at the end of warm-up.
        momentum: m.
        nesterov: whether the step looks ahead, as for ``sgd``.
        weight_decay: β; the default is SimCLR's.
        trust_coefficient: η. solo-learn's CIFAR settings have 0.02 with ``clip``.
        clip: whether lr · λ is kept at or below lr, by λ ← min(λ / lr, 1): the rate of a parameter is then λ
            itself, and ``lr`` only bounds it (LARC).
        eps: added to the denominator.
        warmup_steps: steps of linear warm-up from 0.
        schedule: ``"cosine"`` or ``"linear"`` to 0 at the end of training, or ``"constant"``.
        exclude_norm_and_bias: whether biases and normalisations get neither weight decay nor adaptation (λ = 1),
            as SimCLR, BYOL and solo-learn's settings have it.
        decay_regularized: whether matrices with a non-zero regularizer coefficient get weight decay too, as for
            ``adamw``; they are adapted either way.

    Raises:
        ValueError: for a momentum outside [0, 1), or ``nesterov`` without momentum.

    Source: You, Gitman & Ginsburg 2017, arXiv 1708.03888, equation 6.

    lightly's LARS is not used: it adapts no parameter without weight decay, so that ``weight_decay=0`` is SGD
    unsaid and ``decay_regularized=False`` would change more than the decay; and it compares every norm with 0 on
    the host, which on a GPU waits for the device once a parameter.
    """

    def __init__(
        self,
        *,
        lr: Annotated[float, AtLeast(0)],
        momentum: Momentum = 0.9,
        nesterov: bool = False,
        weight_decay: Annotated[float, AtLeast(0)] = 1e-6,
        trust_coefficient: Annotated[float, AtLeast(0)] = 1e-3,
        clip: bool = False,
        eps: Annotated[float, AtLeast(0)] = 1e-8,
        warmup_steps: Annotated[int, AtLeast(0)] = 0,
        schedule: ScheduleName = "cosine",
        exclude_norm_and_bias: bool = True,
        decay_regularized: bool = True,
    ) -> None:
        super().__init__(
            name="lars",
            lr=lr,
            weight_decay=weight_decay,
            arguments={
                "momentum": check_momentum(momentum),
                "nesterov": check_nesterov(nesterov, momentum),
                "trust_coeff": trust_coefficient,
                "trust_clip": clip,
                "eps": eps,
            },
            warmup_steps=warmup_steps,
            schedule=schedule,
            exclude_norm_and_bias=exclude_norm_and_bias,
            decay_regularized=decay_regularized,
        )


def _class_of(name: str) -> Any:
    """The class of one of timm's optimizers.

    Raises:
        ValueError: timm does not have it, it cannot be used here, or it is another package's that is not installed.
    """
    from timm.optim import get_optimizer_info, list_optimizers

    known = [str(each) for each in list_optimizers()]
    stem = name.lower()
    for refused, why in REFUSED.items():
        if stem.startswith(refused):
            raise ValueError(f"name: timm's {name} {why}; choose another")
    if stem not in known:
        hint = suggest(stem, known)
        raise ValueError(f"name: timm has no optimizer {name!r}{hint} (all names: timm.optim.list_optimizers())")
    found = get_optimizer_info(stem).opt_class
    if not isinstance(found, str):
        return found
    module, _, attribute = found.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ValueError(f"name: timm's {name} is another package's, which is not installed: {error}") from error


def _named(name: str, layers: Mapping[str, Any]) -> list[Any]:
    """Layers of a name, a glob, or ``"first"`` or ``"last"``."""
    encoder = [layer for key, layer in layers.items() if key.partition(".")[0] not in HEADS]
    if name == "first":
        return encoder[:1]
    if name == "last":
        return list(layers.values())[-1:]
    return [layers[name]] if name in layers else [layer for key, layer in layers.items() if fnmatchcase(key, name)]


def _parted(groups: list[dict[str, Any]], fallbacks: set[nn.Parameter]) -> list[dict[str, Any]]:
    """Groups in which all parameters, or none, fall back to AdamW."""
    parted = []
    for group in groups:
        left = [p for p in group["params"] if p not in fallbacks]
        moved = [p for p in group["params"] if p in fallbacks]
        parted += [{**group, "params": left}] if left else []
        parted += [{**group, "params": moved, "use_fallback": True}] if moved else []
    return parted


@contextmanager
def _newton_schulz_in(dtype: torch.dtype) -> Iterator[None]:
    """timm's Muon has its type as a default of the function that it calls, and no argument for it."""
    from timm.optim import muon

    usual = muon.zeropower_via_newtonschulz
    muon.zeropower_via_newtonschulz = partial(usual, dtype=dtype)
    try:
        yield
    finally:
        muon.zeropower_via_newtonschulz = usual
