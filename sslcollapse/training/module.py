"""SSLModule: the one ``nn.Module`` that is handed to Accelerate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import CONSTRAINTS, OBJECTIVES, REGULARIZERS
from sslcollapse.core.types import Batch, Branch, Hidden, sample_rows
from sslcollapse.layers.map import HEADS, Layer, LayerError, layer_map
from sslcollapse.objectives.base import Objective
from sslcollapse.probes.linear import OnlineProbe
from sslcollapse.regularizers.base import FEATURE_POINTS, FeaturePenalty, FeaturePoint, WeightPenalty, chosen_layers
from sslcollapse.regularizers.coefficients import CoefficientFunction, Placed, resolve_coefficient
from sslcollapse.regularizers.constraints import Constrained, Constraint
from sslcollapse.regularizers.rank_floor import RankFloorController
from sslcollapse.training.encoder import checked_width, encoder_from_recipe
from sslcollapse.training.outputs import LayerOutputs
from sslcollapse.training.target import TargetNetwork, target_of

Coefficients = Mapping[str, Mapping[str, Any]]
"""Regularizer → layer or kind of feature → what its penalty is multiplied with: a number, or a scalar tensor."""


class SSLModule(nn.Module):
    """Online encoder and heads, target network, objective and regularizers; one forward gives the loss.

    Args:
        encoder: one view in, [N, out_dim] out.
        objective: says which heads and target it needs; they are built here.
        regularizers: name → penalty on weights or on features.
        constraints: name → set of matrices that weights of the online network stay in. A target network has plain
            weights, which follow what the online network multiplies with.
        initialization: scheme that the encoder was initialised by, for a target with an initialisation of its own.
        total_steps: length of training, which schedules are relative to.
        online_probe: classifier of representations, trained beside the network and cut off from its gradient.
        in_shape: of one sample of a view, for objectives with a decoder.

    Attributes:
        layers: layer name → ``Layer`` of the online network; head layers are prefixed with the head's name.
        controllers: regularizer → the controller that is its coefficient, where it has one.
        constrained: the constraints at work.

    Raises:
        RecipeError: a regularizer with the name of an attribute, a coefficient that fits no layer, a weight penalty on
            networks without any, a feature penalty on what nobody makes, or a constraint that cannot be.
    """

    encoder: Any
    projector: Any
    predictor: Any
    decoder: Any
    token: nn.Parameter | None
    objective: Objective
    target: TargetNetwork | None

    def __init__(
        self,
        encoder: nn.Module,
        objective: Objective,
        regularizers: Mapping[str, WeightPenalty | FeaturePenalty] | None = None,
        *,
        total_steps: int,
        online_probe: OnlineProbe | None = None,
        constraints: Mapping[str, Constraint] | None = None,
        initialization: str | None = None,
        in_shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = objective.projector(self.encoder.out_dim)
        embedded = (self.encoder, "encoder") if self.projector is None else (self.projector, "objective.projector")
        self.predictor = objective.predictor(checked_width(*embedded))
        self.decoder = objective.decoder(self.encoder.out_dim, in_shape)
        token = objective.token(in_shape)
        self.token = None if token is None else nn.Parameter(token)
        self.objective = objective
        for name in regularizers or {}:
            if hasattr(nn.ModuleDict, name) or name == "training":
                raise RecipeError(f"regularizers.{name}: PyTorch's modules have {name!r} already; choose another name")
        self.regularizers = nn.ModuleDict(regularizers or {})
        self.online_probe = online_probe
        self.total_steps = total_steps
        start = objective.target_initialization
        self.target = target_of(self, start, initialization) if objective.needs_target else None
        self.layers = _layers(self)
        self.constrained = Constrained(constraints or {}, self, self.layers)
        if self.target is not None and constraints:
            self.constrained.start(_layers(self.target), self.layers if start == "copy" else None)
        penalties = dict(regularizers or {})
        self._penalized: dict[str, dict[str, Layer]] = {}
        self._observed: dict[str, dict[str, Placed]] = {}
        for name, penalty in penalties.items():
            if isinstance(penalty, WeightPenalty):
                self._penalized[name] = self._layers_of(name, penalty)
            else:
                self._observed[name] = self._points_of(name, penalty)
        self._coefficients: dict[str, CoefficientFunction] = {
            name: self._coefficient_of(name, penalty) for name, penalty in penalties.items()
        }
        loops = {name: at for name, at in self._coefficients.items() if isinstance(at, RankFloorController)}
        self.controllers: Any = nn.ModuleDict(loops)  # so that their state is in the module's state dict

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any], in_shape: Sequence[int], num_classes: int | None) -> SSLModule:
        """Build all networks that a resolved recipe asks for, from torch's global random state; the encoder first."""
        encoder = encoder_from_recipe(recipe, in_shape)
        regularizers = {name: REGULARIZERS.build(spec) for name, spec in recipe["regularizers"].items()}
        constraints = {name: CONSTRAINTS.build(spec) for name, spec in recipe.get("constraints", {}).items()}
        probe = None
        if recipe["train"]["online_probe"]:
            if num_classes is None:
                raise RecipeError("train.online_probe: batches of this domain have no labels; leave it out")
            probe = OnlineProbe(encoder.out_dim, num_classes)
        objective = OBJECTIVES.build(recipe["objective"])
        return cls(
            encoder,
            objective,
            regularizers,
            total_steps=recipe["train"]["steps"],
            online_probe=probe,
            constraints=constraints,
            initialization=recipe.get("initialization"),
            in_shape=in_shape,
        )

    def forward(self, batch: Batch, step: int, coefficients: Coefficients | None = None) -> dict[str, Tensor]:
        """The loss of optimiser step ``step`` (from 0) and its named parts, all scalars.

        Keys: ``loss``; ``objective/<part>``; ``regularizer/<name>/<layer or feature>/penalty`` and ``.../weighted``;
        with an online probe ``online_probe/loss`` (a part of the loss) and ``online_probe/accuracy``. ``coefficients``,
        which may be scalar tensors, stand in the place of ``active(step)``.
        """
        with self.constrained.held():
            return self._losses(batch, step, self.active(step) if coefficients is None else coefficients)

    def _losses(self, batch: Batch, step: int, coefficients: Coefficients) -> dict[str, Tensor]:
        gather = Gather(enabled=not batch.replicated, equal=batch.equal)
        with self.outputs_of((kind for name in self._observed for kind in coefficients[name]), gather) as outputs:
            online = [self.branch(view) for view in batch.views]
        target = None
        if self.target is not None:
            with torch.no_grad():
                target = [self.target(view) for view in batch.views]
        self.objective.step, self.objective.total_steps = step, self.total_steps
        losses = self.objective(online, target, gather)
        parts = {f"objective/{name}": value for name, value in losses.items()}
        total = sum(losses.values())
        features = self._feature_penalties(step, coefficients, online, outputs, gather)
        penalties = chain(self._weight_penalties(coefficients), features)
        for name, place, penalty, coefficient in penalties:
            weighted = coefficient * penalty
            total = total + weighted
            parts[f"regularizer/{name}/{place}/penalty"] = penalty.detach()
            parts[f"regularizer/{name}/{place}/weighted"] = weighted.detach()
        if self.online_probe is not None:
            probed = self.online_probe(online[0].h, batch.labels)
            total = total + probed["loss"]
            parts |= {f"online_probe/{name}": value for name, value in probed.items()}
        return {"loss": total, **parts}

    def branch(self, view: Any) -> Branch:
        """One view through the online network."""
        hidden = None if self.decoder is None else self._hidden_of(view)
        shown = view if self.token is None else view.with_token(self.token)
        h = sample_rows(self.encoder(shown), view)
        z = h if self.projector is None else self.projector(h)
        d = None if self.decoder is None else self.decoder(h, view)
        return Branch(h, z, None if self.predictor is None else self.predictor(z), d, hidden)

    def _hidden_of(self, view: Any) -> Hidden:
        hidden: Hidden | None = getattr(view, "hidden", None)
        if hidden is None:
            raise RecipeError(
                f"objective: {type(self.objective).__name__} finds again what views hide, and these hide nothing; give "
                "the domain views that do, such as node_mask of graphs (docs/masked.md)"
            )
        return hidden

    def weight_penalties(self, step: int, *, inactive: bool = False) -> Iterator[tuple[str, str, Tensor, float]]:
        """(regularizer, layer, penalty, coefficient) at a step; those with coefficient 0 only if ``inactive``."""
        return self._weight_penalties(self.coefficients(step) if inactive else self.active(step))

    def _weight_penalties(self, coefficients: Coefficients) -> Iterator[tuple[str, str, Tensor, Any]]:
        for name, penalized in self._penalized.items():
            layers = {layer: penalized[layer] for layer in coefficients[name]}
            for layer, penalty in self.regularizers[name](layers).items():
                yield name, layer, penalty, coefficients[name][layer]

    def outputs_of(self, kinds: Iterable[str], gather: Gather) -> LayerOutputs:
        """A context around forward passes for ``features``: keeps the outputs of those kinds that are layers."""
        return LayerOutputs({kind: self.layers[kind] for kind in kinds if kind not in BRANCH_FIELD}, gather.ranks)

    def features(self, kind: str, online: Sequence[Branch], outputs: LayerOutputs) -> list[Tensor]:
        """What a penalty on a kind of feature, or on a layer, reads: [n, d] a view."""
        if kind not in BRANCH_FIELD:
            return outputs.rows(kind)
        return [getattr(branch, BRANCH_FIELD[kind]) for branch in online]

    def _feature_penalties(
        self, step: int, coefficients: Coefficients, online: Sequence[Branch], outputs: LayerOutputs, gather: Gather
    ) -> Iterator[tuple[str, str, Tensor, Any]]:
        """(regularizer, kind of feature or layer, penalty, coefficient) of those that have a coefficient."""
        for name in self._observed:
            for kind, coefficient in coefficients[name].items():
                features = self.features(kind, online, outputs)
                yield name, kind, self.regularizers[name](features, gather, step), coefficient

    def coefficients(self, step: int) -> dict[str, dict[str, float]]:
        """Regularizer → layer (or kind of feature) → coefficient at a step."""
        return {name: at(step) for name, at in self._coefficients.items()}

    def active(self, step: int) -> dict[str, dict[str, float]]:
        """The coefficients at a step that are not 0: of the penalties that are computed in it."""
        coefficients = self.coefficients(step)
        return {name: {place: value for place, value in at.items() if value} for name, at in coefficients.items()}

    def regularized_layers(self) -> set[str]:
        """Names of the layers that some regularizer gives a non-zero coefficient at some step."""
        return {
            layer
            for name in self._penalized
            for step in range(self.total_steps)
            for layer, value in self._coefficients[name](step).items()
            if value
        }

    def undecayed(self) -> set[nn.Parameter]:
        """Parameters without weight decay, since a constraint computes a weight from them."""
        return self.constrained.undecayed()

    def observed(self) -> Iterator[tuple[str, str]]:
        """(Regularizer, kind of feature or layer) of all penalties on features that have a coefficient at some step."""
        last = self.total_steps - 1
        steps = {*range(0, last, max(1, last // 100)), last}  # of a long schedule, so many moments are enough
        for name, kinds in self._observed.items():
            at = self._coefficients[name]
            yield from ((name, kind) for kind in kinds if name in self.controllers or any(at(k)[kind] for k in steps))

    def coupling(self) -> set[str]:
        """Names of the parts whose loss depends on how samples are divided into batches.

        ``"objective"``, and the names of regularizers.

        Raises:
            RecipeError: the objective does not say whether it couples the samples of a batch.
        """
        if self.objective.couples_batch is None:
            raise RecipeError(
                f"objective: {type(self.objective).__name__} does not say whether its loss couples the samples of a "
                "batch, which accumulation must know; write couples_batch = True or False in its class "
                "(sslcollapse.testing.couples_batch finds it out)"
            )
        coupled = {name for name in self._observed if getattr(self.regularizers[name], "couples_batch", False)}
        return coupled | ({"objective"} if self.objective.couples_batch else set())

    def target_weight(self, step: int) -> float:
        """How far the target moves towards the online network after a step: 1 − momentum; 0 without a target."""
        return 0.0 if self.target is None else 1.0 - self.objective.momentum_at(step, self.total_steps)

    def update_target(self, step: int, weight: float | Tensor | None = None) -> None:
        """Move the target after each real optimiser step, by ``weight`` (default ``target_weight(step)``)."""
        if self.target is not None:
            weight = self.target_weight(step) if weight is None else weight
            self.target.follow(self, weight, buffers=self.objective.target_buffers == "copy")

    def plain_encoder(self) -> nn.Module:
        """The encoder to be exported: a copy with plain weights where constraints compute them, else itself."""
        return self.constrained.released(self.encoder)

    def _coefficient_of(self, regularizer: str, penalty: WeightPenalty | FeaturePenalty) -> CoefficientFunction:
        places: Mapping[str, Placed] = self._penalized.get(regularizer) or self._observed[regularizer]
        try:
            return resolve_coefficient(penalty.coefficient, places, self.total_steps)
        except RecipeError as error:
            raise RecipeError(f"regularizers.{regularizer}.coefficient: {error}") from error

    def _layers_of(self, regularizer: str, penalty: WeightPenalty) -> dict[str, Layer]:
        network = {
            name: next((head for head in HEADS if name.startswith(f"{head}.")), "encoder") for name in self.layers
        }
        chosen = {name: layer for name, layer in self.layers.items() if network[name] in penalty.networks}
        if not chosen:
            raise RecipeError(
                f"regularizers.{regularizer}.networks: {list(penalty.networks)} has no layer to regularise with "
                f"{type(self.objective).__name__}; the networks here are {', '.join(dict.fromkeys(network.values()))}"
            )
        return chosen

    def _points_of(self, name: str, penalty: FeaturePenalty) -> dict[str, Placed]:
        if "prediction" in penalty.on and self.predictor is None:
            raise RecipeError(
                f"regularizers.{name}.on: {type(self.objective).__name__} has no predictor, so there is no "
                "'prediction'; regularise 'representation' or 'embedding'"
            )
        try:
            layers = chosen_layers(self.layers, [each for each in penalty.on if each not in FEATURE_POINTS])
        except LayerError as error:
            raise RecipeError(f"regularizers.{name}.on: {error}; or name {', '.join(FEATURE_POINTS)}") from error
        after = 1 + max((layer.depth for layer in layers.values()), default=-1)
        points = {kind: FEATURE_POINTS[kind] for kind in penalty.on if kind in FEATURE_POINTS}
        return {**layers, **{kind: FeaturePoint(after + point.depth) for kind, point in points.items()}}


BRANCH_FIELD = {"representation": "h", "embedding": "z", "prediction": "p"}


def _layers(networks: Any) -> dict[str, Layer]:
    """Layers of an encoder and its heads, if any."""
    layers = layer_map(networks.encoder)
    for head in HEADS:
        module = getattr(networks, head, None)
        if module is not None:
            for name, layer in layer_map(module).items():
                layers[f"{head}.{name}"] = replace(layer, name=f"{head}.{name}")
    return layers
