"""``sslcollapse.diagnose``: one call for a network, a comparison or a series; and the command, which is little more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from torch import nn

from sslcollapse.nn.wrappers import check_count
from sslcollapse.rank.diagnose.columns import check_columns
from sslcollapse.rank.diagnose.compare import add_changes
from sslcollapse.rank.diagnose.diagnosis import Diagnosis, diagnose_weights
from sslcollapse.rank.diagnose.outputs import add_outputs
from sslcollapse.rank.diagnose.series import Series, recorded_falls, steps_of
from sslcollapse.rank.diagnose.state_dict import TargetError
from sslcollapse.rank.diagnose.targets import Given, load_data, load_target
from sslcollapse.rank.diagnose.verdicts import COLLAPSED

FOUND = 1
"""Exit code of a diagnosis that finds what ``--fail-on`` names; no failure of this package has it."""

NEVER = "never"


@overload
def diagnose(
    target: Given,
    data: Any = ...,
    against: Given | None = ...,
    *,
    samples: int | None = ...,
    columns: Sequence[str] = ...,
    entry: str | None = ...,
    pretrained: bool = ...,
    untrained: nn.Module | None = ...,
) -> Diagnosis: ...


@overload
def diagnose(
    target: list[Given] | tuple[Given, ...],
    data: Any = ...,
    against: None = ...,
    *,
    samples: int | None = ...,
    columns: Sequence[str] = ...,
    entry: str | None = ...,
    pretrained: bool = ...,
    untrained: nn.Module | None = ...,
) -> Series: ...


def diagnose(
    target: Given | list[Given] | tuple[Given, ...],
    data: Any = None,
    against: Given | None = None,
    *,
    samples: int | None = None,
    columns: Sequence[str] = (),
    entry: str | None = None,
    pretrained: bool = False,
    untrained: nn.Module | None = None,
) -> Diagnosis | Series:
    """Say of every layer of a network whether it is healthy, degrading or collapsed.

    Args:
        target: a network in memory, in any wrapper; a state dict; the path of a run, an export, a state dict or a
            folder of shards; ``timm:``, ``torchvision:`` or ``hf:`` and a name. A list is a series, the oldest first.
        data: also measure outputs, of these inputs: a tensor, batches (a loader, say), or a recipe or its path, whose
            probe set is taken. Needs a target that can be run.
        against: another target, the base: what has changed since, layer by layer.
        samples: at most this many inputs.
        columns: more of every weight, by name: see ``docs/diagnose-columns.md``; ``all`` for every one.
        entry: which network of a checkpoint that holds several, such as ``"student"``.
        pretrained: published weights of a timm or torchvision model; by default it is randomly initialised.
        untrained: what the outputs of a network in memory are held against; by default a copy of it with new weights.

    Returns:
        A ``Diagnosis``; of a list a ``Series``.

    Raises:
        TargetError: what is given cannot be read, cannot be run, or has no layers.
        DataError: a file that is no regular one, or claims more than it holds.
        RecipeError, MissingDataError: see the recipe of ``data``.
    """
    if samples is not None:
        try:
            check_count("samples", samples)
        except (TypeError, ValueError) as error:
            raise TargetError(str(error)) from None
    names = check_columns([columns] if isinstance(columns, str) else columns)
    inputs = load_data(Path(data)) if isinstance(data, (str, Path)) else data  # it may register the target's parts

    def load(one: Given) -> Any:
        return load_target(one, pretrained=pretrained, entry=entry, untrained=untrained)

    if isinstance(target, (list, tuple)):
        if against is not None:
            raise TargetError("against= is for one target; a series is compared with its own past")
        return _series(list(target), lambda one: _one(load(one), inputs, samples, names))
    loaded = load(target)
    found = _one(loaded, inputs, samples, names)
    if loaded.run is not None:
        found = replace(found, falls=recorded_falls(loaded.run / "metrics.jsonl", found))
    return found if against is None else add_changes(found, loaded, load(against))


def _one(loaded: Any, inputs: Any, samples: int | None, columns: Sequence[str]) -> Diagnosis:
    found = diagnose_weights(loaded, columns)
    return found if inputs is None else add_outputs(found, loaded, inputs, samples)


def _series(targets: Sequence[Given], judge: Callable[[Given], Diagnosis]) -> Series:
    if not targets:
        raise TargetError("a series needs at least one target, the list is empty")
    named = all(isinstance(one, (str, Path)) for one in targets)
    steps = steps_of([str(one) for one in targets]) if named else list(range(len(targets)))
    return Series(
        {step: judge(one) for step, one in sorted(zip(steps, targets, strict=True), key=lambda pair: pair[0])}
    )


def run_diagnosis(
    targets: Sequence[str],
    *,
    data: Path | None = None,
    files: Mapping[str, Path | None] | None = None,
    samples: int | None = None,
    pretrained: bool = False,
    fail_on: str = COLLAPSED,
    columns: Sequence[str] = (),
    entry: str | None = None,
    series: bool = False,
    gallery: Path | None = None,
) -> int:
    """Diagnose one target, compare two, or follow more; print what is found and write the files asked for.

    Args:
        targets: one; the base and the tuned one; or a series of three or more, the oldest first.
        data: recipe whose probe set the network is run on.
        files: ``json``, ``csv``, ``html`` and ``plot`` → where they go.
        samples, pretrained, columns, entry: see ``diagnose``.
        fail_on: the mildest verdict that makes the exit code 1; ``"never"`` for none.
        series: whether two targets are a series.
        gallery: folder that gets the entry of this checkpoint, and the page anew.

    Returns:
        0, or 1 where a layer's verdict is ``fail_on`` or worse.

    Raises:
        TargetError: see ``diagnose``; also a file that cannot be written.
    """
    from sslcollapse.rank.diagnose.report import show, show_series

    more: dict[str, Any] = dict(samples=samples, pretrained=pretrained, columns=columns, entry=entry)
    found: Diagnosis | Series
    if series or len(targets) > 2:
        found = diagnose(tuple(targets), data, **more)
    elif len(targets) == 2:
        found = diagnose(targets[1], data, targets[0], **more)
    else:
        found = diagnose(targets[0], data, **more)
    show(found) if isinstance(found, Diagnosis) else show_series(found)
    writers: dict[str, Callable[[Path], Any]] = dict(
        json=found.to_json, csv=found.to_csv, html=found.to_html, plot=found.plot
    )
    for word, path in (files or {}).items():
        if path is not None:
            _written(writers[word], path)
    if gallery is not None:
        from sslcollapse.rank.diagnose.gallery import add_entry

        if not isinstance(found, Diagnosis):
            raise TargetError("--gallery: an entry is of one checkpoint, not of a series")
        _written(lambda path: add_entry(found, targets[-1], path, pretrained=pretrained), gallery)
    return FOUND if fail_on != NEVER and found.fails(fail_on) else 0


def _written(write: Callable[[Path], Any], path: Path) -> None:
    try:
        write(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TargetError(f"{path}: cannot be written: {reason}") from error
