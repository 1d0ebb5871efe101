"""The contenders of ``bench graph-step``: each a function that does one training step."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sslcollapse.core.capture import WARM_UP, Captured
from sslcollapse.core.distributed import Gather
from sslcollapse.core.memory import keep_freed_memory
from sslcollapse.core.seeding import derive_seed, generator, seed_default
from sslcollapse.core.types import Batch, Context
from sslcollapse.domains.graph.view import augment
from sslcollapse.encoders.gcn import gcn_matrix
from sslcollapse.nn.sparse import import_geometric
from sslcollapse.recipe import resolve
from sslcollapse.training.build import build_domain, build_module, data_root
from sslcollapse.training.static import StaticStep

if TYPE_CHECKING:
    from tools.bench.graph_step import Size
    from tools.bench.plain_bgrl import PlainBGRL

EDGE_DROP, FEATURE_MASK = (0.2, 0.3), (0.2, 0.1)
MOMENTUM, LR = 0.99, 5e-4
Step = Callable[[], Any]


def make_contender(name: str, size: Size) -> tuple[Step, dict[str, Callable[[], Any]]]:
    """A contender's step and its further measurements."""
    if name != "plain":
        keep_freed_memory()
    torch.set_float32_matmul_precision("high" if name.endswith("_tf32") else "highest")
    if name.startswith("plain"):
        plain = _plain(size)
        if name == "plain_compiled":
            plain.compile(size.compiler)
        return lambda: plain.step(EDGE_DROP, FEATURE_MASK, MOMENTUM), {}
    ours = Ours(size, werank=name.endswith("_werank"), bf16=name == "ours_bf16")
    if name.startswith("floor"):
        return (captured(ours.floor(), ours.device) if name == "floor_captured" else ours.floor()), {}
    if name.startswith("ours_captured"):
        return ours.captured(), {}
    return ours.step, {"parts": ours.parts, "check": ours.check}


def captured(step: Step, device: torch.device) -> Step:
    """A step without arguments, replayed as a CUDA graph after its first calls; on a CPU as it is.

    Raises:
        RuntimeError: it cannot be captured.
    """
    if device.type != "cuda":
        return step
    nothing = torch.empty(0, device=device)

    def function() -> Tensor:
        step()
        return nothing

    graph = Captured(function, device)
    _replayed(graph, graph)
    return graph


def _replayed(step: Step, graph: Any) -> None:
    """Take the steps before the first replay, and that one."""
    for _ in range(WARM_UP + 1):
        step()
    if graph.why_not is not None:
        raise RuntimeError(f"not captured: {graph.why_not}")


class Ours:
    """This package's step, as the trainer does it."""

    def __init__(self, size: Size, *, werank: bool, bf16: bool) -> None:
        self.recipe = resolve(
            {
                "name": "bench",
                "domain": {
                    "type": "graph",
                    "dataset": dict(size.dataset),
                    "views": {"edge_drop": EDGE_DROP, "feature_mask": FEATURE_MASK},
                },
                "encoder": {"type": "gcn", "hidden": list(size.hidden)},
                "objective": {"type": "bgrl", "predictor_hidden": size.predictor, "momentum": MOMENTUM},
                "regularizers": {"werank": {"type": "werank", "coefficient": 1e-2}} if werank else {},
                "optim": {"type": "adamw", "lr": LR, "schedule": "constant"},
                "train": {"steps": 1_000_000},
            }
        )
        self.size, self.device = size, torch.device(size.device)
        self.domain: Any = build_domain(self.recipe)
        self.module = build_module(self.recipe, self.domain).to(self.device).train()
        from sslcollapse.core.registry import OPTIMIZERS

        self.optimizer = OPTIMIZERS.build(self.recipe["optim"]).build(self.module)
        self.batches = self.domain.batches(0, Context(device=self.device))
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16)

    def step(self) -> None:
        """One training step."""
        batch = next(self.batches)
        with self.autocast:
            loss = self.module(batch, 0)["loss"]
        loss.backward()
        self.optimizer.step()
        self.module.update_target(0)
        self.optimizer.zero_grad()

    def captured(self) -> Step:
        """One training step as the trainer takes it on a GPU: numbers written before, then one CUDA graph replayed."""
        source, steps = self.domain.fixed_batches(Context(device=self.device)), count()
        static = StaticStep(self.module, self.module, self.optimizer, lambda step: LR, source, self.device)

        def step() -> None:
            number = next(steps)
            seed_default(self.device, derive_seed("step", 0, number, 0))
            static(number)

        if self.device.type == "cuda":
            _replayed(step, static)
        return step

    def floor(self) -> Step:
        """The dense products that no implementation of this step can leave out, and nothing else.

        Layer 2 and the predictor: forward of two online views and (layer 2 only) two target views, and for the
        online ones both products of the backward pass. Layer 1 is sparse. Outputs are written in place.
        """
        rows = self.domain.dataset.graphs[0].num_nodes
        first, last = self.size.hidden
        shapes = [(first, last), (last, self.size.predictor), (self.size.predictor, last)]
        products: list[tuple[Tensor, Tensor, Tensor]] = []
        for index, (narrow, wide) in enumerate(shapes):
            x, w, g = self._random(rows, narrow), self._random(wide, narrow), self._random(rows, wide)
            forward = (x, w.t(), torch.empty_like(g))
            backward = [(g, w, torch.empty_like(x)), (g.t(), x, torch.empty_like(w))]
            products += 2 * [forward, *backward] + (2 * [forward] if index == 0 else [])

        def step() -> None:
            for a, b, out in products:
                torch.mm(a, b, out=out)

        return step

    def check(self) -> dict[str, float]:
        """The loss here and in plain PyTorch Geometric for the same weights and the same draws."""
        plain = _plain(self.size)
        _copy_weights(self.module, plain)
        base = next(self.domain.batches(0, Context(device=self.device))).views[0]
        views, copies = [], []
        for k in range(2):
            view = augment(base, EDGE_DROP[k], FEATURE_MASK[k], generator(self.device, "bench", k))
            data = plain.data.clone()
            data.x, data.edge_index = view.x.clone(), view.edge_index
            views.append(view)
            copies.append(data)
        online = [self.module.branch(view) for view in views]
        with torch.no_grad():
            target = [self.module.target(view) for view in views]
        ours = self.module.objective(online, target, Gather(enabled=False))["bgrl"]
        return {"ours": float(ours.detach()), "plain": float(plain.loss(*copies).detach())}

    def parts(self) -> dict[str, float]:
        """Median ms of the step's parts, and of WERank against its own two matrix products."""
        layers = self.module.layers
        weights = [layers[name].weight() for name in self.module.coefficients(0)["werank"]]
        small = [w.detach() if w.shape[0] <= w.shape[1] else w.detach().t() for w in weights]
        grams = [w.new_empty(w.shape[0], w.shape[0]) for w in small]
        outs = [torch.empty_like(w) for w in small]

        def products() -> None:
            for w, gram, out in zip(small, grams, outs, strict=True):
                torch.mm(w, w.t(), out=gram)
                torch.mm(gram, w, out=out)

        def penalty() -> None:
            loss = sum(coefficient * value for _, _, value, coefficient in self.module.weight_penalties(0))
            torch.autograd.grad(loss, [layers[name].parameter for name in self.module.coefficients(0)["werank"]])

        batch = next(self.batches)
        view = batch.views[0]

        def views() -> Batch:
            made = next(self.batches)
            for v in made.views:
                v.adjacency(gcn_matrix)
                v.features._masked_sparse if v.features.sparse else None  # noqa: B018
            return made

        encoder = self.module.encoder
        hidden = self._random(view.num_nodes, self.size.hidden[0]).requires_grad_()
        upstream = self._random(view.num_nodes, self.size.hidden[0])
        adjacency = view.adjacency(gcn_matrix)
        weight = encoder.convs[0].weight

        def four_times(function: Callable[[], Tensor], inputs: list[Tensor]) -> Step:
            """Two online views with backward, two target views without."""

            def run() -> None:
                for _ in range(2):
                    torch.autograd.grad(function(), inputs, upstream)
                    with torch.no_grad():
                        function()

            return run

        step_parts: dict[str, Step] = {
            "werank": penalty,
            "werank_products": products,
            "making_views": lambda: views(),
            "sparse_features_layer_1": four_times(lambda: view.features.linear(weight), [weight]),
            "sparse_adjacency_layer_1": four_times(lambda: adjacency @ hidden, [hidden]),
            "norm_activation_layer_1": four_times(lambda: encoder.norm_acts[0](hidden), [hidden]),
            "optimizer": self._optimizer_step(),
            "target_update": lambda: self.module.update_target(0),
        }
        # In turns, since a machine's speed drifts by more than the difference between two parts.
        times: dict[str, list[float]] = {name: [] for name in step_parts}
        for _ in range(self.size.repeats + 2):
            for name, part in step_parts.items():
                times[name] += milliseconds(part, self.device, 1)
        timed = {name: median(values[2:]) for name, values in times.items()}
        return {"threads": torch.get_num_threads(), **timed}

    def _random(self, rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, device=self.device)

    def _optimizer_step(self) -> Step:
        self.module(next(self.batches), 0)["loss"].backward()
        return self.optimizer.step


def _plain(size: Size) -> PlainBGRL:
    graphs = import_geometric("data")
    from sslcollapse.core.registry import GRAPH_DATASETS
    from tools.bench.plain_bgrl import PlainBGRL  # imports PyTorch Geometric

    torch.manual_seed(0)
    graph = GRAPH_DATASETS.build(dict(size.dataset), data_root({"data_root": None})).load().graphs[0]
    x = graph.x.to_dense() if graph.x.layout == torch.sparse_csr else graph.x
    data = graphs.Data(x=x, edge_index=graph.edge_index).to(size.device)
    return PlainBGRL(data, [x.shape[1], *size.hidden], size.predictor, LR)


@torch.no_grad()
def _copy_weights(module: Any, plain: PlainBGRL) -> None:
    for ours, theirs in ((module.encoder, plain.online), (module.target.encoder, plain.target)):
        for depth, conv in enumerate(ours.convs):
            theirs.convs[depth].lin.weight.copy_(conv.weight)
            theirs.convs[depth].bias.zero_()
            norm = ours.norm_acts[depth].norm
            theirs.norms[depth].module.weight.copy_(norm.weight)
            theirs.norms[depth].module.bias.copy_(norm.bias)
            theirs.acts[depth].weight.copy_(ours.norm_acts[depth].activation.weight)
    head = module.predictor
    for ours_layer, theirs_layer in zip(head.layers, (plain.predictor[0], plain.predictor[2]), strict=True):
        theirs_layer.weight.copy_(ours_layer.weight)
        theirs_layer.bias.copy_(ours_layer.bias)
    plain.predictor[1].weight.copy_(head.norm_acts[0].activation.weight)


def milliseconds(step: Step, device: torch.device, steps: int) -> list[float]:
    """Of each step; on a GPU, whose queue is waited for before and after, one value, the mean of all in a row."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize(device)
        return [1e3 * (time.perf_counter() - began) / steps]
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - began))
    return times
