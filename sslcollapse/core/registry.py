"""Registries: every interchangeable component is looked up here by kind and name.

One rule separates what a recipe says from what the framework supplies: a component's **keyword-only**
parameters are its recipe arguments, its positional parameters are filled in by the framework.

    @ENCODERS.register("my_gcn")
    class MyGCN(nn.Module):
        def __init__(self, in_shape: Sequence[int], *, hidden: Sequence[int] = (512, 256)) -> None: ...

    ENCODERS.build({"type": "my_gcn", "hidden": [64, 64]}, (1433,))

Built-in components are named in ``BUILTIN`` of the room where their code is, as ``"module:attribute"``, and
imported when first used, so listing them imports none. Another package adds its own through an entry point of the group
``sslcollapse.<kind>`` (for example ``sslcollapse.encoder``), without touching this one, and a kind of its own with
``REGISTRIES.add``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, MutableMapping
from importlib.metadata import entry_points
from typing import Any

from sslcollapse.core.errors import in_words
from sslcollapse.core.kind import KINDS
from sslcollapse.core.kind import Registry as Registry
from sslcollapse.core.kind import RegistryError as RegistryError
from sslcollapse.core.kind import remedy as remedy

ENCODERS = Registry("encoder", "sslcollapse.encoders", requires=("forward", "out_dim", "reset_parameters"))
OBJECTIVES = Registry(
    "objective",
    "sslcollapse.objectives",
    requires=("forward", "projector", "predictor", "couples_batch", "needs_target", "target_initialization"),
    base="sslcollapse.Objective",
)
REGULARIZERS = Registry(
    "regularizer",
    "sslcollapse.regularizers",
    requires=("forward", "coefficient"),
    base="sslcollapse.WeightPenalty or sslcollapse.FeaturePenalty",
)
COEFFICIENTS = Registry("coefficient", "sslcollapse.regularizers", requires=("resolve",))
CONSTRAINTS = Registry("constraint", "sslcollapse.regularizers")
OPTIMIZERS = Registry("optimizer", "sslcollapse.optim", requires=("build", "lr_at"), base="sslcollapse.OptimizerSpec")
DOMAINS = Registry(
    "domain",
    "sslcollapse.domains",
    requires=(
        *("kind", "in_shape", "num_classes", "replicated", "describe", "check", "load", "notice", "batches"),
        *("probe_set", "measurable", "neighbours", "draw"),
    ),
    base="sslcollapse.Domain",
)
GRAPH_DATASETS = Registry(
    "graph_dataset", "sslcollapse.domains.graph", requires=("num_features", "files", "describe", "load")
)
GRAPH_BATCHING = Registry(
    "graph_batching",
    "sslcollapse.domains.graph",
    requires=("whole", "draws_views", "check", "fit", "notice", "batches"),
)
GRAPH_VIEWS = Registry("graph_view", "sslcollapse.domains.graph", requires=("scaled", "__call__"))
GRAPH_CHAINS = Registry("graph_views", "sslcollapse.domains.graph", requires=("count", "undirected", "make"))
VISION_DATASETS = Registry(
    "vision_dataset",
    "sslcollapse.domains.vision",
    requires=("channels", "size", "num_classes", "mean", "std", "files", "describe", "load"),
)
VISION_VIEWS = Registry("vision_views", "sslcollapse.domains.vision")
PROBES = Registry("probe", "sslcollapse.probes", requires=("__call__",), base="sslcollapse.SplitProbe")


class Registries(MutableMapping[str, Registry]):
    """Kind → registry: those of this package, and those that other packages and recipe files add.

    A package declares its kind with an entry point of the group ``sslcollapse.registry``, whose name is the kind and
    whose value a ``Registry``: so ``list`` and records know it where nothing has imported the package.
    """

    def __init__(self, *registries: Registry) -> None:
        self._known = {registry.kind: registry for registry in registries}
        self._places: dict[str, Any] = {}  # kind → file that has added it
        self._entry_points_read = False

    def add(self, registry: Registry) -> Registry:
        """Make a kind of component known; return its registry, so that it can be given a name at once.

            TEXT_DATASETS = REGISTRIES.add(Registry("text_dataset", {"agnews": "sslcollapse_text.agnews:AGNews"}))

        A recipe's ``Annotated[dict, Component("text_dataset")]`` is then checked, listed and recorded as all others.

        Raises:
            RegistryError: there is one of this kind already, from another file.
        """
        place = sys._getframe(1).f_globals.get("__file__")
        if registry.kind in self._known and (place is None or self._places.get(registry.kind) != place):
            by = self._places.get(registry.kind, "this package")
            raise RegistryError(f"there is a kind {registry.kind!r} already, from {by}; choose another name")
        self._known[registry.kind], self._places[registry.kind] = registry, place
        return registry

    def known(self) -> list[str]:
        """Kinds that are known by now; no entry point is read for it."""
        return list(self._known)

    def forget(self, kinds: Collection[str], modules: Collection[str], is_users: Callable[[str | None], bool]) -> None:
        """Forget what a user's files have registered: the next run of a process reads its own.

        Args:
            kinds: that were known before.
            modules: names of those that are to be imported anew.
            is_users: whether a file is a user's.
        """
        for kind in [kind for kind in self._known if kind not in kinds]:
            place = self._places.get(kind)
            if place is None or is_users(place):  # an entry point may declare it again
                del self._known[kind]
                self._places.pop(kind, None)
                self._entry_points_read = False
        for registry in self._known.values():
            registry.forget(modules, is_users)

    def __getitem__(self, kind: str) -> Registry:
        if kind not in self._known:
            self._read_entry_points()
        return self._known[kind]

    def __setitem__(self, kind: str, registry: Registry) -> None:
        self._known[kind] = registry

    def __delitem__(self, kind: str) -> None:
        del self._known[kind]

    def __iter__(self) -> Iterator[str]:
        self._read_entry_points()
        return iter(self._known)

    def __len__(self) -> int:
        self._read_entry_points()
        return len(self._known)

    def _read_entry_points(self) -> None:
        """Add the kinds of installed packages.

        Raises:
            RegistryError: one that cannot be imported, or is no registry of that kind.
        """
        if self._entry_points_read:
            return
        for point in entry_points(group=KINDS):
            try:
                registry = point.load()
            except Exception as error:  # another package's module may fail in any way
                raise RegistryError(
                    f"the kind {point.name!r} that the entry point {point.value} declares cannot be imported: "
                    f"{in_words(error)}; repair or remove that package"
                ) from error
            if not isinstance(registry, Registry) or registry.kind != point.name:
                raise RegistryError(
                    f"the entry point {point.value} is no Registry({point.name!r}), but {registry!r:.80}; "
                    "repair or remove that package"
                )
            known = self._known.setdefault(point.name, registry)
            if known is not registry:
                raise RegistryError(f"there is a kind {point.name!r} already beside that of {point.value}")
        self._entry_points_read = True


REGISTRIES = Registries(
    ENCODERS,
    OBJECTIVES,
    REGULARIZERS,
    COEFFICIENTS,
    CONSTRAINTS,
    OPTIMIZERS,
    DOMAINS,
    GRAPH_DATASETS,
    GRAPH_BATCHING,
    GRAPH_VIEWS,
    GRAPH_CHAINS,
    VISION_DATASETS,
    VISION_VIEWS,
    PROBES,
)
