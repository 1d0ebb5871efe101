"""Constraints: weights that cannot leave a set of matrices, where a regularizer only pulls them towards it.

Two kinds. A parametrization computes the weight from a stored tensor at every use: the optimizer moves that tensor, and
the layer map reads what is computed. A retraction leaves the weight a plain parameter and brings it back after every
optimizer step. Initial weights are in the set before the first step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from sslcollapse.core.distributed import is_sharded
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.precision import precisely
from sslcollapse.layers.effective import effective, oriented
from sslcollapse.layers.map import Layer, LayerError, by_tensor
from sslcollapse.nn.init import polar_factor
from sslcollapse.nn.parametrized import Chain, Matrices
from sslcollapse.recipe.schema import Distinct, Width
from sslcollapse.regularizers.base import OUTSIDE, chosen_layers


class Constraint:
    """A set of matrices that the weights of chosen layers stay in.

    Args:
        on: names or globs of layers; a glob is of the encoder's, unless it begins with ``projector.`` or
            ``predictor.``.

    Raises:
        ValueError: for an ``on`` that is empty or names one twice.
    """

    decays = True
    """Whether what is stored may have weight decay."""
    flat = True
    """Whether a parametrization reads matrices only, so that a convolution's weight is stored as one."""

    def __init__(self, on: Sequence[str]) -> None:
        if not on or len(set(on)) < len(on):
            raise ValueError(f"on must name layers or globs, each once, got {list(on)!r}")
        self.on = tuple(on)

    def nearest(self, matrix: Tensor) -> Tensor:
        """The matrix of the set that an unconstrained [out, in] begins as."""
        raise NotImplementedError

    def parametrized(self, matrix: nn.Parameter) -> nn.Module | None:
        """A parametrization with values in the set, which can begin with ``matrix``; None for a plain weight."""
        return None

    def after_step(self, layers: Mapping[str, Layer]) -> None:
        """Bring plain weights back, in place; called after each real optimizer step."""


class Orthogonal(Constraint):
    """Weights with orthonormal rows or columns: WWᵀ = I or WᵀW = I, whichever side of [out, in] is smaller.

    By ``torch.nn.utils.parametrizations.orthogonal``: W = B · Q(A), with a fixed orthogonal B, the initial weight
    completed to a square, and Q(A) = (I + A/2)(I − A/2)⁻¹ or e^A of a skew-symmetric A, which is what is trained. The
    cost grows with the cube of the larger side: below a second a step for 1,433 on one core; ``"retraction"`` costs
    less. A convolution is [out, in·kh·kw]. A has no weight decay, which would pull W back to where it began.

    Args:
        on: names or globs of layers; a glob is of the encoder's, unless it begins with ``projector.`` or
            ``predictor.``.
        map: ``"cayley"`` or ``"matrix_exp"``, whose gradient takes several times as long. The Householder products of
            torch are left out: their gradient takes many times as long, and weight decay or Muon destroys the signs
            that torch keeps on the diagonal of the stored tensor.

    Source: Lezcano-Casado 2019 (trivializations).
    """

    decays = False

    def __init__(
        self,
        *,
        on: Annotated[Sequence[str], Distinct()] = ("*",),
        map: Literal["cayley", "matrix_exp"] = "cayley",
    ) -> None:
        super().__init__(on)
        self.map = map

    def nearest(self, matrix: Tensor) -> Tensor:
        """The polar factor."""
        return polar_factor(matrix)

    def parametrized(self, matrix: nn.Parameter) -> nn.Module:
        """torch's, of a matrix with orthonormal rows or columns."""
        return _of_torch(parametrizations.orthogonal, matrix, orthogonal_map=self.map, use_trivialization=True)


class SpectralNorm(Constraint):
    """Weights divided by their largest singular value: W = V / σ(V).

    By ``torch.nn.utils.parametrizations.spectral_norm``, which estimates σ by the power method, here from the exact
    singular vectors on. A convolution is [out, in·kh·kw], which is not the norm of the operator on images.

    Args:
        on: names or globs of layers; a glob is of the encoder's, unless it begins with ``projector.`` or
            ``predictor.``.
        iterations: of the power method, at every training step.

    Source: Miyato et al. 2018.
    """

    flat = False

    def __init__(self, *, on: Annotated[Sequence[str], Distinct()] = ("*",), iterations: Width = 1) -> None:
        super().__init__(on)
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        self.iterations = iterations

    def nearest(self, matrix: Tensor) -> Tensor:
        """The matrix with the same singular vectors whose largest singular value is 1."""
        return matrix / torch.linalg.matrix_norm(matrix, 2)

    def parametrized(self, matrix: nn.Parameter) -> nn.Module:
        """torch's, of any matrix but zero."""
        made: Any = _of_torch(parametrizations.spectral_norm, matrix, n_power_iterations=self.iterations)
        left, _, right = torch.linalg.svd(matrix.detach(), full_matrices=False)
        made._u.copy_(left[:, 0])
        made._v.copy_(right[0])
        return made


class Retraction(Constraint):
    """Plain weights that become their polar factor after each optimizer step: W = USVᵀ → UVᵀ.

    The set is that of ``"orthogonal"``, and the polar factor is the nearest matrix of it. The optimizer sees a weight
    like any other, so that weight decay changes nothing, and momentum is not turned with the weight. On a GPU each step
    waits for the polar factors, since torch looks at the outcome of an eigendecomposition on the host.

    Args:
        on: names or globs of layers; a glob is of the encoder's, unless it begins with ``projector.`` or
            ``predictor.``.

    Source: Absil & Malick 2012 (projection-like retractions).
    """

    def __init__(self, *, on: Annotated[Sequence[str], Distinct()] = ("*",)) -> None:
        super().__init__(on)

    def nearest(self, matrix: Tensor) -> Tensor:
        """The polar factor."""
        return polar_factor(matrix)

    @torch.no_grad()
    def after_step(self, layers: Mapping[str, Layer]) -> None:
        """Every weight becomes its polar factor."""
        for layer in layers.values():
            layer.assign(polar_factor(layer.weight()))


class Constrained:
    """Constraints at work on the layers of a network, which is changed in place.

    Args:
        constraints: name → constraint.
        network: whose layers they are.
        layers: name → layer of it.
        heads: whether there are heads; without, names in them are passed over.

    Attributes:
        layers: constraint → layer name → layer.
        tensors: (module, attribute) of every weight that a parametrization computes.

    Raises:
        RecipeError: an ``on`` that matches no layer, two constraints on one layer, or a weight that cannot be
            constrained; starts with the place in the recipe.
    """

    def __init__(
        self,
        constraints: Mapping[str, Constraint],
        network: nn.Module,
        layers: Mapping[str, Layer],
        *,
        heads: bool = True,
    ) -> None:
        self.constraints = dict(constraints)
        self.layers: dict[str, dict[str, Layer]] = {}
        self.tensors: list[tuple[nn.Module, str]] = []
        self.of: dict[str, str] = {}  # layer → its constraint
        for name, constraint in self.constraints.items():
            patterns = [pattern for pattern in constraint.on if heads or not pattern.startswith(OUTSIDE)]
            try:
                self.layers[name] = chosen_layers(layers, patterns)
            except LayerError as error:
                raise RecipeError(f"constraints.{name}.on: {error}") from error
            for layer in self.layers[name]:
                if layer in self.of:
                    raise _refused(name, layer, f"it has the constraint {self.of[layer]!r} already")
                self.of[layer] = name
        chosen = {layer: layers[layer] for layer in self.of}
        for layer in chosen:
            if (reason := _not_plain(chosen[layer], network)) is not None:
                raise _refused(self.of[layer], layer, reason)
        for group in by_tensor(chosen):
            self._apply(group)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, parametrized weights are computed once, in full precision, whatever uses them.

        Raises:
            RecipeError: what such a weight is computed from was sharded meanwhile.
        """
        chains: list[Any] = [module.get_submodule(f"parametrizations.{tensor}") for module, tensor in self.tensors]
        for place, chain in zip(self.tensors, chains, strict=True):
            if is_sharded(chain.original):
                every = [layer for layers in self.layers.values() for layer in layers.values()]
                name = next(layer.name for layer in every if (layer.module, layer.tensor) == place)
                raise _refused(self.of[name], name, SHARDED)
        try:
            for chain in chains:
                chain.held = precisely(
                    lambda stored, of=chain: torch.func.functional_call(of, {"original": stored}, ()), chain.original
                )
            yield
        finally:
            for chain in chains:
                chain.held = None

    def after_step(self) -> None:
        """What is due after each real optimizer step."""
        for name, constraint in self.constraints.items():
            constraint.after_step(self.layers[name])

    def undecayed(self) -> set[Any]:
        """Parameters that weight decay would not pull towards zero but the weight to where it began."""
        spared = [layers for name, layers in self.layers.items() if not self.constraints[name].decays]
        return {layer.parameter for layers in spared for layer in layers.values()}

    def start(self, layers: Mapping[str, Layer], like: Mapping[str, Layer] | None = None) -> None:
        """Give another network's plain weights, by the same names, a matrix of the set: the nearest, or those of one.

        Args:
            layers: of the other network; names that it has not are passed over.
            like: layers whose weights it gets; by default its own, made to fit.
        """
        for name in self.of.keys() & layers.keys():
            own = layers[name]
            own.assign(self.constraints[self.of[name]].nearest(own.weight()) if like is None else like[name].weight())

    def released(self, network: nn.Module) -> nn.Module:
        """A copy of a network, or the network itself without parametrizations, whose weights are plain parameters."""
        if not self.tensors:
            return network
        # Not by remove_parametrizations: a copy shares the class of the original, which would lose its weight as well.
        twin, ours = copy.deepcopy(network), {id(module) for module, _ in self.tensors}
        for path, module in network.named_modules():
            if id(module) in ours:
                plain: Any = twin.get_submodule(path)
                del plain._modules["parametrizations"]
                plain.__class__ = type(module).__bases__[0]
                for tensor in [tensor for each, tensor in self.tensors if each is module]:
                    weight = oriented(module, tensor, effective(module, tensor)).detach()
                    plain.register_parameter(tensor, nn.Parameter(weight.clone()))
        return twin

    def _apply(self, group: Mapping[str, Layer]) -> None:
        """Constrain the layers of one tensor."""
        first = next(iter(group.values()))
        module, tensor, shape = first.module, first.tensor, first.parameter.shape
        begins: dict[str, Tensor] = {}
        parts: list[tuple[Any, nn.Module]] = []
        for name, layer in group.items():
            constraint = self.constraints[self.of[name]]
            begins[name] = constraint.nearest(layer.weight().detach())
            layer.assign(begins[name])
            made = constraint.parametrized(nn.Parameter(begins[name].clone()))
            if made is not None:
                if is_sharded(first.parameter):
                    raise _refused(self.of[name], name, SHARDED)
                parts.append((layer.channels(torch.arange(shape[0], device=first.parameter.device), 0), made))
        if len(parts) not in (0, len(group)):
            raise _refused(self.of[first.name], first.name, "its tensor has a retraction and a parametrization")
        if parts:
            whole = len(parts) == 1 and first.shape[0] == shape[0]
            flat = len(shape) > 2 and self.constraints[self.of[first.name]].flat
            step = parts[0][1] if whole and not flat else Matrices(shape, parts)
            parametrize.register_parametrization(module, tensor, step, unsafe=True)
            module.get_submodule(f"parametrizations.{tensor}").__class__ = Chain
            self.tensors.append((module, tensor))
        for name, layer in group.items():
            if not torch.allclose(layer.weight(), begins[name], rtol=1e-3, atol=1e-3):
                kind = type(module).__name__.removeprefix("Parametrized")
                raise _refused(self.of[name], name, f"{kind} multiplies with something else than what it stores")


SHARDED = "no process has its weight as a whole (FSDP2), which a parametrization needs; 'retraction' works with shards"


def _of_torch(register: Callable[..., Any], matrix: nn.Parameter, **arguments: Any) -> nn.Module:
    """The parametrization that one of torch's functions puts on a matrix."""
    holder: Any = nn.Module()
    holder.weight = matrix
    register(holder, "weight", **arguments)
    return holder.parametrizations.weight[0]


def _not_plain(layer: Layer, network: nn.Module) -> str | None:
    """Why a layer's weight cannot be constrained; None where it can."""
    parameter = layer.module._parameters.get(layer.tensor)
    if parameter is None or parametrize.is_parametrized(layer.module):
        return f"{type(layer.module).__name__} computes its weight already (a parametrization, a mask, an adapter)"
    if layer.item is not None:
        return "it is one of a stack of matrices"
    if sum(each is parameter for module in network.modules() for each in module._parameters.values()) > 1:
        return "several modules share its weight"
    return None


def _refused(constraint: str, layer: str, reason: str) -> RecipeError:
    return RecipeError(f"constraints.{constraint}.on: layer {layer!r} cannot be constrained: {reason}; leave it out")
