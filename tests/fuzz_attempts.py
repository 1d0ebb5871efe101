"""What is done with an odd recipe, override, grid, file of records or command, and what becomes of it."""

from __future__ import annotations

import io
import json
import shlex
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from tiny import tiny_recipe

from sslcollapse.ablation.drive import preview
from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.tables.columns import columns
from sslcollapse.ablation.tables.page import page
from sslcollapse.cli import BUG, main
from sslcollapse.core.errors import SSLCollapseError, explained
from sslcollapse.recipe import difference, extend, from_json, load, override, recipe_hash, resolve, to_json
from sslcollapse.report.from_records import ablation_of
from sslcollapse.report.page import run_page
from sslcollapse.report.runs import is_run, read_run
from sslcollapse.training.build import build_domain, build_module

SECONDS = 30
"""Of processor time, which one input may take; planning takes a small part of one."""

LARGEST_BUILT, LEAST_REFUSED = 2_000, 10**8
"""Networks of widths in between would be built, but slowly."""

_OPTIM = dict(optim=dict(type="adamw", lr=1e-3), train=dict(steps=3), monitor=dict(every=2))
_KNN = dict(type="knn", k=5, split="public")
BASES: list[dict[str, Any]] = [
    tiny_recipe("one", **_OPTIM, evaluate=dict(public=dict(type="logistic", split="public"))),
    tiny_recipe(
        "two",
        **_OPTIM,
        regularizers=dict(
            werank=dict(type="werank", coefficient={"convs.*": 0.1}, networks=["encoder"]),
            ldreg=dict(type="ldreg", k=5, coefficient=dict(type="schedule", base=0.1, start=1)),
            floor=dict(type="so", coefficient=dict(type="rank_floor", every=2)),
        ),
    ),
    dict(
        name="three",
        domain=dict(type="vision", dataset=dict(type="digits"), views=dict(flip=0.0, strength=0.5), batch_size=8),
        encoder=dict(type="mlp", hidden=[16, 8]),
        objective=dict(type="simclr", projector=[8, 4], temperature=0.5),
        **_OPTIM,
        evaluate=dict(knn=_KNN),
    ),
    dict(
        name="four",
        domain=dict(type="toy", dim=8, views=dict(noise=0.5, dims=3), batch_size=8),
        encoder=dict(type="linear", hidden=[8, 8], initial_rank=3),
        objective=dict(type="vicreg", projector=[8]),
        **_OPTIM,
        regularizers=dict(sigreg=dict(type="sigreg", directions=4, on=["embedding", "representation"])),
    ),
    tiny_recipe("five", **_OPTIM)
    | dict(
        encoder=dict(type="pyg", module="GAT", out_dim=8, kwargs=dict(hidden_channels=8, num_layers=2)),
        objective=dict(type="byol", projector=[8, 4], predictor_hidden=8),
    ),
]


class Outcome(NamedTuple):
    """What became of an input: ``"accepted"``, the class of an error for people, or ``"traceback"`` with the error."""

    kind: str
    error: BaseException | None = None


class TooSlowError(Exception):
    """An input took more than ``SECONDS``."""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlowError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(attempt: Any, *arguments: Any) -> Outcome:
    """Run one attempt and say what became of it."""
    try:
        with _limited():
            attempt(*arguments)
    except SSLCollapseError as error:
        return Outcome(type(error).__name__ if str(error).strip() else "without words")
    except Exception as error:
        # The command line makes a sentence of these, which no code can prevent.
        sentence = explained(error, {}) if isinstance(error, (OSError, MemoryError)) else None
        return Outcome("traceback", error) if sentence is None else Outcome(type(error).__name__)
    return Outcome("accepted")


def plan_recipe(recipe: Mapping[str, Any]) -> None:
    """All that happens to a recipe before its data are read."""
    resolved = resolve(recipe)
    assert resolve(resolved) == resolved
    digest = recipe_hash(resolved)
    again = from_json(to_json(resolved))
    assert recipe_hash(again) == digest
    assert difference(resolved, again) == []
    assert resolve(extend(recipe, {})) == resolved
    sizes = [abs(number) for number in _ints({key: resolved[key] for key in ("encoder", "objective", "domain")})]
    slow = [size for size in sizes if LARGEST_BUILT < size < LEAST_REFUSED]
    if slow or resolved["encoder"]["type"] in ("timm", "resnet50"):  # of timm also what asks the network
        return
    domain = build_domain(resolved)
    domain.check(1)
    build_module(resolved, domain)


def plan_override(base: int, words: list[str]) -> None:
    """The same of a recipe with overrides."""
    plan_recipe(override(BASES[base], words))


def plan_json(text: str) -> None:
    """The same of the text of a JSON file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.json"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        plan_recipe(load(path))


def plan_python(body: str) -> None:
    """The same of a recipe that is a Python file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.py"
        path.write_bytes(body.encode("utf-8", "surrogatepass"))
        plan_recipe(load(path))


def plan_grid(bases: list[int], grid: list[str], baseline: list[str], words: list[str]) -> None:
    """What ``ablate --grid ... --dry-run`` does before anything runs."""
    with tempfile.TemporaryDirectory() as folder:
        targets = [Path(folder) / f"base{base}.json" for base in bases]
        for target, base in zip(targets, bases, strict=True):
            target.write_text(json.dumps(BASES[base]))
        ablation = plan(targets[0], grid, 2, words, baseline=baseline, others=targets[1:])
        assert preview(ablation, Records(Path(folder) / "runs.jsonl"))


def plan_file(fields: Mapping[str, Any]) -> None:
    """The same of an ablation file, whose fields are what its Python code makes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "base.json").write_text(json.dumps(BASES[1]))
        path = Path(folder) / "ablation.py"
        path.write_text("from fuzz_attempts import HANDED_OVER\nablation = dict(HANDED_OVER)\n")
        HANDED_OVER.clear()
        HANDED_OVER.update(fields)
        ablation = plan(path, [], None, [])
        assert preview(ablation, Records(Path(folder) / "runs.jsonl"))


HANDED_OVER: dict[Any, Any] = {}
"""What the ablation file of ``plan_file`` says; not all values could be written in a file."""

FILE = dict(
    name="grid",
    base="base.json",
    axes={"encoder.hidden": [[8], [4]], ("train.steps", "optim.lr"): [(2, 0.1), (3, 0.2)]},
    seeds=2,
    baseline={"encoder.hidden": [8]},
    metrics=["rank.representation.effective_rank"],
    claim=dict(
        number=1,
        statement="It grows.",
        checks=[dict(name="c", metric="rank.representation.effective_rank", expect="positive", cell={}, where={})],
    ),
)

_METRIC = {"values": [0.5, 0.6], "mean": 0.55, "std": 0.1, "n": 2}
_RANK = {"effective_rank": 3.0, "effective_rank_centred": 3.0, "attainable": 8, "n": 120}
RECORD = {
    **dict(hash="00000000", seed=0, name="one", base="one", overrides={"optim.lr": 0.1}, settings=[], steps=3),
    "evaluation": {"public": {"solver": "lbfgs", "test_accuracy": _METRIC, "validation_accuracy": _METRIC}},
    "untrained": {"public": {"solver": "lbfgs", "test_accuracy": _METRIC}},
    "rank": {"representation": _RANK, "layers": {"convs.0": {"weight": _RANK, "output": _RANK}}},
    "regularizers": {"werank": {"convs.0": {"penalty": 1.0, "floor": 0.0, "excess": 1.0, "coefficient": 0.1}}},
    "seconds": {"training": 1.0, "steps_trained": 3, "evaluation": 0.1},
    **dict(commit="0", device="cpu", torch="2", torch_geometric="2", threads=1),
}


def read_records(lines: list[bytes]) -> None:
    """A results folder's records, rebuilt to an ablation and its tables."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n")
        records = Records(path)
        ablation, _ = ablation_of("grid", list(records))
        assert page(ablation, records, {}, "command")
        assert columns(ablation, list(records)) is not None


RESULT = {key: value for key, value in RECORD.items() if key not in ("base", "overrides", "settings", "name")}
RUN = {
    "recipe.json": {"name": "one", "seed": 0, "encoder": {"type": "gcn", "hidden": [8, 4]}, "train": {"steps": 3}},
    "environment.json": {"device": "cpu", "time": "2026", "command": ["a"], "packages": {"torch": "2"}},
    "result.json": {**RESULT, "recipe": {"name": "one"}},
    "metrics.jsonl": {
        **{"step": 1, "loss": 0.5, "lr": 0.1, "rank/representation/effective_rank": 3.0},
        **{"rank/layers/convs.0/weight/effective_rank": 3.0, "rank/layers/convs.0/weight/attainable": 4},
        **{"regularizer/werank/convs.0/penalty": 1.0, "gradient/convs.0/cosine": 0.1},
    },
}


def read_run_files(files: Mapping[str, Any]) -> None:
    """A run directory's page, all but the drawing."""
    with tempfile.TemporaryDirectory() as folder:
        for name, value in files.items():
            (Path(folder) / str(name).replace("/", "_").replace("\0", "_")[:50]).write_bytes(line_of(value) + b"\n")
        if is_run(Path(folder)):
            page = run_page([read_run(Path(folder))])
            assert all(table.html() for section in page.sections for table in section.tables)


def give_command(words: list[str]) -> None:
    """A whole command; its exit code may be any but that of a fault of this package."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.json"
        path.write_text(json.dumps(BASES[0]))
        silent = io.StringIO()
        with redirect_stdout(silent), redirect_stderr(silent):
            try:
                code = main(["train", str(path), "--dry-run", "--debug", *words])
            except SystemExit as stop:
                code = 2 if stop.code == 2 else BUG
        assert code != BUG, silent.getvalue()


def line_of(value: Any) -> bytes:
    """A value as a line of JSON; a damaged one of what is none."""
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError, RecursionError):
        return b'{"hash": 1' + b"0" * 4400 + b"}"


def _ints(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        yield from _ints(item)


def text_of(value: Any) -> str:
    """A value as Python code, as far as it can be written."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return "9" * 5000


def shown(kind: str, arguments: Any) -> str:
    """An input as one reads it in a report, shortened."""
    text = shlex.quote(text_of(arguments))
    return f"{kind}: {text if len(text) < 2000 else f'{text[:2000]}...'}"
