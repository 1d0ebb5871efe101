"""Adapter that runs any PyTorch Geometric module as an encoder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.errors import RecipeError, in_words, quote, suggest
from sslcollapse.nn.init import graph_features
from sslcollapse.nn.sparse import import_geometric
from sslcollapse.recipe.schema import Width

RING = 32
"""Nodes that a new module is tried on."""


class PyG(nn.Module):
    """Any ``torch_geometric.nn`` model called as ``module(x, edge_index)``, such as GAT, GIN or GraphSAGE.

    Args:
        in_shape: number of node features, or (features,), given to the module as its first argument.
        module: class name in ``torch_geometric.nn``, e.g. ``"GAT"``.
        out_dim: width of the representation.
        kwargs: the module's other arguments, e.g. ``dict(hidden_channels=256, num_layers=2)``.

    Raises:
        ValueError: for a class that ``torch_geometric.nn`` does not have, or arguments that it refuses, be it only when
            it is called.

    The module sees the same dropped edges and masked features as the encoders of this package.
    ``cached=True`` is refused: a cached normalisation silently ignores edge dropping.
    """

    reads = ("graph",)

    def __init__(
        self,
        in_shape: int | Sequence[int],
        *,
        module: str,
        out_dim: Width,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        in_dim = graph_features(in_shape, "pyg")
        library = import_geometric("nn")
        factory = getattr(library, module, None)
        if not inspect.isclass(factory) or not issubclass(factory, nn.Module):
            known = [name for name in dir(library) if inspect.isclass(getattr(library, name))]
            raise ValueError(f"module: torch_geometric.nn has no module {module!r}{suggest(module, known)}")
        _check_call(factory, module)
        arguments = dict(kwargs or {})
        if arguments.get("cached"):
            raise ValueError("kwargs.cached: a cached normalisation ignores edge dropping; leave it out")
        if "out_channels" in inspect.signature(factory.__init__).parameters or "BasicGNN" in {
            base.__name__ for base in factory.__mro__
        }:
            arguments.setdefault("out_channels", out_dim)
        try:
            self.module = factory(in_dim, **arguments)
            self.out_dim = out_dim
            self._try(in_dim)
        except Exception as error:  # its modules check their arguments in many ways, some by failing, some when called
            raise ValueError(
                f"kwargs: torch_geometric.nn.{module} refuses {quote(arguments)}: {in_words(error)}"
            ) from error

    def reset_parameters(self) -> None:
        """Initialise the module again.

        Raises:
            RecipeError: when the module has no ``reset_parameters``.
        """
        if not hasattr(self.module, "reset_parameters"):
            raise RecipeError(
                f"encoder.module: {type(self.module).__name__} has no reset_parameters(), which a target network "
                "needs; use another objective or module"
            )
        self.module.reset_parameters()

    def forward(self, view: Any) -> Tensor:
        """A graph view of N nodes → [N, out_dim]."""
        out = self.module(view.x, view.edge_index)
        if out.shape[-1] != self.out_dim:
            raise ValueError(f"out_dim is {self.out_dim}, but the module returned width {out.shape[-1]}")
        return out

    @torch.no_grad()
    def _try(self, in_dim: int) -> None:
        """Call the module once, on a ring of nodes, so that what it refuses is refused before training."""
        if any(parameter.is_meta for parameter in self.module.parameters()):
            return  # built for its shapes alone; nothing can be computed with it
        source = torch.arange(RING)
        ring = torch.stack([torch.cat([source, (source + 1) % RING]), torch.cat([(source + 1) % RING, source])])
        training = self.module.training
        with torch.random.fork_rng(devices=[]):
            self.module.eval()
            out = self.module(torch.zeros(RING, in_dim), ring)
            self.module.train(training)
        if not isinstance(out, Tensor) or tuple(out.shape) != (RING, self.out_dim):
            shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"it returns {shape} for {RING} nodes, where out_dim={self.out_dim} says otherwise")


def _check_call(factory: type[nn.Module], module: str) -> None:
    """Refuse a class whose instances are not called with features and edges: containers, losses, language models."""
    names = list(inspect.signature(factory.forward).parameters)[1:3]
    if len(names) < 2 or names[0] != "x" or names[1] not in ("edge_index", "hyperedge_index", "adj_t"):
        raise ValueError(
            f"module: torch_geometric.nn.{module} is not called as module(x, edge_index), but with "
            f"({', '.join(names)}, ...); an encoder is a convolution or a model of node features such as GCN or GAT"
        )
