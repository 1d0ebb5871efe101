"""One kind of component: what there is of it by name, built-in, from plug-ins and from recipe files."""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from importlib.metadata import entry_points, packages_distributions, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from sslcollapse.core.errors import SSLCollapseError, absent, in_words, suggest

F = TypeVar("F", bound=Callable[..., Any])


PACKAGE = __name__.partition(".")[0]

KINDS = "sslcollapse.registry"
"""Group of the entry points that declare kinds of components."""


class RegistryError(SSLCollapseError, ValueError):
    """A component is unknown, registered twice, or was given arguments it does not take."""


class UnknownComponentError(RegistryError):
    """No component of this name is registered."""


def remedy(error: BaseException) -> str:
    """What to do about an error of a run or an export that a component unknown here is the cause of; else ""."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UnknownComponentError):
        cause = cause.__cause__
    if cause is None:
        return ""
    return (
        "; if a recipe file registers it, name that file: --recipe FILE (in Python, call sslcollapse.load_recipe(FILE) "
        "before), or give it an entry point"
    )


class Registry:
    """Components of one kind by name.

    Args:
        kind: what the components are, as used in messages (``"encoder"``).
        builtin: name → ``"module:attribute"`` of the components that are shipped with it; or the package whose
            ``BUILTIN[kind]`` says so, with modules relative to it, which is read when it is first needed.
        requires: names of what every component has; one that lacks some of it is refused when it is built.
        base: class to derive from, which has what a component need not write, as messages call it; "" for none.
    """

    def __init__(
        self,
        kind: str,
        builtin: str | Mapping[str, str] = MappingProxyType({}),
        *,
        requires: Sequence[str] = (),
        base: str = "",
    ) -> None:
        self.kind = kind
        self.requires, self.base = tuple(requires), base
        self._builtin = builtin
        self._factories: dict[str, Callable[..., Any]] = {}
        self._parameters: dict[str, dict[str, inspect.Parameter]] = {}
        self._supplied: dict[str, tuple[str, ...]] = {}
        self._entry_points_read = False
        self._places: dict[str, str] = {}  # file of what a decorator has registered

    def register(self, name: str) -> Callable[[F], F]:
        """Return a decorator that registers a class or factory function under ``name``.

        Raises:
            RegistryError: when the name is taken; the message names where.
        """

        place = sys._getframe(1).f_globals.get("__file__")

        def decorate(factory: F) -> F:
            target = f"{factory.__module__}:{factory.__qualname__}"
            if name in self._known() and self._targets[name] != target:
                taken, package = self._targets[name], self._targets[name].partition(":")[0].partition(".")[0]
                moved = (
                    f"; or remove it from {Path(place).name if place else 'this file'}, if {package} has it now"
                    if package != PACKAGE
                    else ""
                )
                raise RegistryError(
                    f"{self.kind} {name!r} is already registered by {taken}; choose another name for {target}{moved}"
                )
            self._targets[name] = target
            self._factories[name] = factory
            self._parameters.pop(name, None)
            self._supplied.pop(name, None)
            if place:
                self._places[name] = str(place)
            return factory

        return decorate

    def names(self, pattern: str = "*") -> list[str]:
        """Registered names that match a glob, sorted."""
        return sorted(fnmatch.filter(self._known(), pattern))

    def get(self, name: str) -> Callable[..., Any]:
        """The class or function registered under ``name``, imported if need be.

        Raises:
            UnknownComponentError: the message suggests the nearest and lists all.
            RegistryError: it needs a package that is not installed.
        """
        if name not in self._known():
            known = self.names()
            raise UnknownComponentError(
                f"unknown {self.kind} {name!r}{suggest(name, known)} (known: {', '.join(known)})"
            )
        if name not in self._factories:
            module, _, attribute = self._targets[name].partition(":")
            try:
                self._factories[name] = getattr(importlib.import_module(module), attribute)
            except ModuleNotFoundError as error:
                if (lacking := absent(error)) is None:
                    raise
                raise RegistryError(f"{self.kind} {name!r}: {lacking}") from error
        return self._factories[name]

    def parameters(self, name: str) -> dict[str, inspect.Parameter]:
        """Recipe arguments of a component (its keyword-only parameters), annotations resolved."""
        if name not in self._parameters:
            signature = inspect.signature(self.get(name), eval_str=True)
            self._supplied[name] = supplied(signature)
            self._parameters[name] = {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
        return self._parameters[name]

    def supplied(self, name: str) -> tuple[str, ...]:
        """What a component cannot be constructed without, and only the framework can supply."""
        self.parameters(name)
        return self._supplied[name]

    def build(self, spec: Mapping[str, Any], *supplied: Any) -> Any:
        """``construct`` the component that ``spec["type"]`` names, and make sure that it has what its kind requires.

        Raises:
            RegistryError: see ``construct`` and ``check``.
        """
        component = self.construct(spec, *supplied)
        self.check(component, spec["type"])
        return component

    def construct(self, spec: Mapping[str, Any], *supplied: Any) -> Any:
        """Construct the component that ``spec["type"]`` names; what a finished run has left needs no more.

        Args:
            spec: ``{"type": name, argument: value, ...}``.
            supplied: what the framework passes by position (input width, data root, ...).

        Raises:
            RegistryError: for an unknown component, or a value that its constructor refuses.
        """
        if "type" not in spec:
            raise RegistryError(f"a {self.kind} needs 'type'; known: {', '.join(self.names())}")
        arguments = {key: value for key, value in spec.items() if key != "type"}
        factory = self.get(spec["type"])
        try:
            return factory(*supplied, **arguments)
        except (SSLCollapseError, MemoryError):
            raise
        except Exception as error:  # a component may check its arguments by failing
            raise RegistryError(f"{self.kind} {spec['type']!r}: {in_words(error)}") from error

    def check(self, component: Any, name: str) -> None:
        """Make sure that a component that was constructed has all that its kind requires.

        Raises:
            RegistryError: names what is not there. The values are not looked at, which may have to read data.
        """
        lacking = [each for each in self.requires if not _has(component, each)]
        if lacking:
            hint = f"derive from {self.base}, which has what need not be written, or add it" if self.base else "add it"
            if self.base and any(cls.__module__.startswith(f"{PACKAGE}.") for cls in type(component).__mro__):
                hint = f"write {' and '.join(f'{each} = ...' for each in lacking)} in the class"
            raise RegistryError(
                f"{self.kind} {name!r}: {type(component).__name__} has no {', '.join(map(repr, lacking))}; {hint}"
            )

    def origin(self, name: str) -> str | None:
        """Where a component comes from that this package does not ship; None of one that it does.

        The distribution and its version (``my-package 1.2``), or of a recipe's own component the file and the hash of
        its source (``mine.py sha256:0123456789ab``).
        """
        module = self._known().get(name, "").partition(":")[0]
        root = module.partition(".")[0]
        if root == PACKAGE:
            return None
        points = [p for p in entry_points(group=f"sslcollapse.{self.kind}") if p.name == name]
        if not points:  # of a plug-in's own kind, which it may have declared where its code is
            kinds = [p for p in entry_points(group=KINDS) if p.name == self.kind]
            points = [p for p in kinds if p.value.partition(":")[0].partition(".")[0] == root]
        if points and points[0].dist is not None:
            return f"{points[0].dist.name} {points[0].dist.version}"
        loaded = getattr(sys.modules.get(module), "__file__", None)
        place = self._places.get(name) or loaded
        if place == loaded:  # a recipe may have the name of a package
            for distribution in packages_distributions().get(root, ()):
                return f"{distribution} {version(distribution)}"
        try:
            source = Path(place or "").read_bytes()
        except OSError:
            return module or None
        return f"{Path(place or '').name} sha256:{hashlib.sha256(source).hexdigest()[:12]}"

    def forget(self, modules: Collection[str], is_users: Callable[[str | None], bool]) -> None:
        """Forget what was registered by a user's file, or comes from a module that is to be imported anew.

        Args:
            modules: names of those.
            is_users: whether a file is a user's.
        """
        by_users = {name for name, place in self._places.items() if is_users(place)}
        gone = by_users | {name for name, made in self._factories.items() if getattr(made, "__module__", "") in modules}
        for name in gone:
            self._factories.pop(name, None)
            self._parameters.pop(name, None)
            self._supplied.pop(name, None)
        if by_users:
            kept = {name: self._targets[name] for name in self._places.keys() - by_users}
            self._places = {name: place for name, place in self._places.items() if name not in by_users}
            del self._targets  # with entry points, one of which may have had the name of such a component
            self._targets.update(kept)
            self._entry_points_read = False

    def describe(self, name: str) -> str:
        """First line of the component's docstring, read without importing a built-in component."""
        if name in self._factories:
            return (inspect.getdoc(self._factories[name]) or "").partition("\n")[0]
        module, _, attribute = self._targets[name].partition(":")
        return _first_doc_line(module, attribute)

    @cached_property
    def _targets(self) -> dict[str, str]:
        """Name → ``"module:attribute"`` of all that is registered, entry points apart before ``_known``."""
        if isinstance(self._builtin, str):
            named = importlib.import_module(self._builtin).BUILTIN[self.kind]
            return {name: f"{self._builtin}.{target}" for name, target in named.items()}
        return dict(self._builtin)

    def _known(self) -> dict[str, str]:
        if not self._entry_points_read:
            self._entry_points_read = True
            for point in entry_points(group=f"sslcollapse.{self.kind}"):
                if point.name in self._targets and self._targets[point.name] != point.value:
                    raise RegistryError(
                        f"{self.kind} {point.name!r} is already registered by "
                        f"{self._targets[point.name]}; the entry point {point.value} takes the same name"
                    )
                self._targets[point.name] = point.value
        return self._targets


def supplied(signature: inspect.Signature) -> tuple[str, ...]:
    """Names of the positional parameters without a default."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in signature.parameters.values() if p.kind in positional and p.default is p.empty)


def _has(component: Any, name: str) -> bool:
    """Whether there is an attribute of this name; a property is not called."""
    try:
        inspect.getattr_static(component, name)
    except AttributeError:
        return hasattr(component, name)  # one that ``__getattr__`` supplies
    return True


def _first_doc_line(module: str, attribute: str) -> str:
    """First docstring line of ``module:attribute`` from its source, without importing the module."""
    root, *parts = module.split(".")
    found = importlib.util.find_spec(root)  # finds a top-level package without importing it
    folders = list(found.submodule_search_locations or []) if found else []
    paths = ["/".join((folder, *parts)) for folder in folders]
    candidates = [f"{path}{ending}" for path in paths for ending in (".py", "/__init__.py")]
    if found and found.origin and not folders:
        candidates = [found.origin]
    for candidate in candidates:
        try:
            with open(candidate, encoding="utf-8") as file:
                tree = ast.parse(file.read())
        except FileNotFoundError:
            continue
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == attribute:
                return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""
