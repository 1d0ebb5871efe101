"""What the parts of ``bench gpu`` measure; each is a function that returns a record with a ``headline``."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tools.bench.gpu import TAIL
from tools.bench.gpu_runs import RUNS, TINY_GRAPH, called, runs

GRAPHS: dict[str, dict[str, Any]] = {
    "Cora": {"type": "planetoid", "name": "Cora"},
    "Physics": {"type": "coauthor", "name": "Physics"},
    "CiteSeer": {"type": "planetoid", "name": "CiteSeer"},
    "Photo": {"type": "amazon", "name": "Photo"},
}
"""Graphs of ``graph-step``, most valuable first: a small one, where launches count, the largest, where work does."""
OPTIONAL = ("lightly", "rich", "timm", "pyarrow", "sklearn", "matplotlib", "hypothesis", "pytest", "triton")


def function_of(name: str) -> Callable[..., dict[str, Any]]:
    """What does the part of this name."""
    if name.startswith("graph-step-"):
        return partial(graph_step, name.removeprefix("graph-step-"))
    if name.startswith("compiled-"):
        return partial(graph_step, name.removeprefix("compiled-"), compiled=True)
    if name in RUNS:
        from tools.bench.speedrun import part

        return partial(part if RUNS[name].command == "speedrun" else runs, name)
    return {
        "environment": surroundings,
        "tests": tests,
        "vision-step": vision_step,
        "views": views,
        "monitor": monitor,
        "probes": probes,
    }[name]


def surroundings(*, smoke: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """Versions, the device, and what it reaches in large products and copies."""
    import torch

    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device

    where = _device(smoke)
    missing = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
    record: dict[str, Any] = {
        "environment": environment(1, device(), sys.argv),
        "nvidia_smi": _nvidia_smi(),
        "missing": missing,
    }
    if where.type == "cuda":
        found = torch.cuda.get_device_properties(where)
        record["device"] = {name: getattr(found, name) for name in ("name", "total_memory", "multi_processor_count")}
        record["cuda"] = torch.version.cuda
    record["reaches"] = reach = _reach(where, 256 if smoke else 8192)
    speeds = ", ".join(f"{name} {value:.1f}" for name, value in reach.items())
    lack = f"; not installed: {', '.join(missing)}" if missing else ""
    return {**record, "headline": f"{device()}, torch {torch.__version__}; {speeds}{lack}"}


def tests(*, smoke: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """The tests of ``tests/gpu``; on a small scale a few of them, which compare the CPU with itself."""
    report = folder / "tests.xml"
    words = [
        "-m",
        "pytest",
        "tests/gpu",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "-o",
        "junit_family=xunit1",
        f"--junitxml={report}",
    ]
    variables = {**os.environ, **({"SSLCOLLAPSE_TEST_DEVICE": "cpu"} if smoke else {})}
    words += ["-k", "objective"] if smoke else []
    with suppress(FileNotFoundError):
        report.unlink()
    code = called([sys.executable, *words], seconds - 5, variables)
    if code not in (0, 1) or not report.exists():  # which are: all passed, some failed
        raise RuntimeError(f"pytest ended with exit code {code}; see tests.log")
    suite = next(iter(xml.etree.ElementTree.parse(report).getroot().iter("testsuite")))
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    failed = {
        case.get("name"): (problem.text or "")[-TAIL:]
        for case in suite.iter("testcase")
        for problem in case
        if problem.tag in ("failure", "error")
    }
    noted = {
        case.get("name"): {str(note.get("name")): note.get("value") for note in case.iter("property")}
        for case in suite.iter("testcase")
        if case.find("properties") is not None
    }
    bad = count["failures"] + count["errors"]
    times = {case.get("name"): float(case.get("time", 0)) for case in suite.iter("testcase")}
    slowest = dict(sorted(times.items(), key=lambda item: -item[1])[:10])
    record = {
        "counts": {**count, "passed": passed},
        "failed": failed,
        "noted": noted,
        "slowest": slowest,
        "exit_code": code,
    }
    return {**record, "headline": f"{passed} passed, {bad} failed, {count['skipped']} skipped"}


def graph_step(label: str, *, smoke: bool, seconds: float, folder: Path, compiled: bool = False) -> dict[str, Any]:
    """BGRL's step on one graph; or that of PyTorch Geometric with and without ``torch.compile``, which takes long."""
    from tools.bench.graph_step import ON_GPU, Size, measure

    size = Size(GRAPHS[label], device=str(_device(smoke)), steps=50, rounds=7)
    contenders: Sequence[str] = ("plain", "plain_compiled") if compiled else ON_GPU
    if smoke:
        size = Size(TINY_GRAPH, (16, 8), 8, str(_device(smoke)), 1, 1, 1, "aot_eager", apart=False)
    else:
        _check_files(GRAPHS[label])
    record = measure(size, contenders)
    ms, faster = record["ms"], record["times_faster"]
    shown = [f"{name} {ms[name]:.2f}" + (f" ({faster[name]:.1f} ×)" if name in faster else "") for name in ms]
    bad = f"; failed: {', '.join(record['failed'])}" if record["failed"] else ""
    adds = "".join(f"; WERank adds {share:.1%} to {name}" for name, share in record["werank_adds"].items())
    headline = f"ms: {', '.join(shown)}{adds}{bad}"
    return {"size": vars(size), "results": record, "headline": headline}


def vision_step(*, smoke: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """A SimCLR step: who feeds it, its share of the device's products, a loop of lightly's, and what WERank adds."""
    from tools.bench.vision_step import ON_GPU, SMALL, cost_of_werank, rates

    where, scale = _device(smoke), SMALL if smoke else replace(ON_GPU, rounds=9)
    encoder = "resnet_narrow" if smoke else "resnet18"
    feeds = rates(where, scale, encoder=encoder)
    record = {"scale": vars(scale), "feeds": feeds, "werank": cost_of_werank(where, scale, encoder)}
    speeds = ", ".join(f"{name} {speed:,.0f}" for name, speed in feeds["views_a_second"].items())
    share, cost = feeds["share_of_measured_bf16"]["resident"], record["werank"]["times_plain"]["part"]
    ratio = f"; {feeds['times_lightly']['resident']:.1f} × lightly" if feeds["times_lightly"] else ""
    return {**record, "headline": f"views/s: {speeds}{ratio}; {share:.1%} of bf16; WERank {cost:.2%} of a step"}


def views(*, smoke: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """Making views alone, on the device."""
    from tools.bench.views import rates_on

    made = rates_on(_device(smoke), batch=8, rounds=1, sizes=(32,)) if smoke else rates_on(_device(smoke))
    shown = ", ".join(f"{name}: {speed:,.0f}" for name, speed in made["views_a_second"].items())
    return {**made, "headline": f"views/s: {shown}"}


def monitor(*, smoke: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """What a collapse monitor adds to an epoch, and what a measurement costs in steps."""
    from tools.bench.monitor import DEEP, graph_training, image_training, large_networks, measurements, overhead

    where = str(_device(smoke))
    if smoke:
        graph, images = graph_training(TINY_GRAPH, where, (16, 8)), image_training(where, 8, "resnet_narrow")
    else:
        _check_files(GRAPHS["Cora"])
        graph, images = graph_training(GRAPHS["Cora"], where), image_training(where)
    rounds = (1, 1) if smoke else (15, 7)
    cases = {"graph": overhead(graph, steps=300, rounds=rounds[0])}
    cases["images"] = overhead(images, steps=195, rounds=rounds[1])
    costs = {"graph": measurements(graph, rounds[0]), "images": measurements(images, rounds[1])}
    shown = ", ".join(f"{name} {case['overhead']:.2%}" for name, case in cases.items())
    in_steps = ", ".join(f"{name} {by[route]['steps']:.1f} ({route})" for name, by in costs.items() for route in by)
    deep = large_networks(where, {"small": (2, 16, 2)}, 1, 64) if smoke else large_networks(where, DEEP)
    blocks = ", ".join(f"{name} {case['training_steps']:.2f}" for name, case in deep.items())
    headline = f"adds to an epoch: {shown}; a measurement in steps: {in_steps}; a measured step in steps: {blocks}"
    return {"results": cases, "measurements": costs, "large_networks": deep, "headline": headline}


def probes(*, smoke: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """The evaluation of a Cora run: two encoders, a logistic probe on one public and 20 random splits; and the rest."""
    from tools.bench.probes import Scale, evaluation

    changes: dict[str, Any] = {}
    if smoke:
        changes = {
            "domain": {"dataset": TINY_GRAPH},
            "encoder": {"hidden": [16, 8]},
            "evaluate": {"random": {"repeats": 2}},
        }
    else:
        _check_files(GRAPHS["Cora"])
    scale = Scale(str(_device(smoke)), steps=2 if smoke else 50, rounds=1 if smoke else 7)
    record = evaluation(scale, ("ours", "without probes"), changes)
    took, rest = (record["seconds"][name] for name in ("ours", "without probes"))
    first = record["first"]["ours"]
    return {**record, "headline": f"evaluation: {took:.3f} s, the first {first:.3f} s; {rest:.3f} s without probes"}


def _check_files(dataset: Mapping[str, Any]) -> None:
    """Say at once what is not there, in place of asking a network that a bare machine does not have."""
    from sslcollapse.core.errors import MissingDataError
    from sslcollapse.core.registry import GRAPH_DATASETS

    root = Path(os.environ.get("SSLCOLLAPSE_DATA") or "data")
    missing = [path for path in GRAPH_DATASETS.build(dict(dataset), root).files() if not path.exists()]
    if missing:
        raise MissingDataError(f"{missing[0]} is not there; set SSLCOLLAPSE_DATA to the folder of the data sets")


def _device(smoke: bool) -> Any:
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if not smoke:
        raise RuntimeError("torch sees no CUDA device; --smoke tries everything on a processor")
    return torch.device("cpu")


def _nvidia_smi() -> str:
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"


def _reach(where: Any, n: int) -> dict[str, float]:
    """TFLOP/s of a large product in three precisions, and GB/s of a copy, read and written bytes counted."""
    import torch

    from tools.bench.vision_step import product_speed, timed

    found, before = {}, torch.get_float32_matmul_precision()
    for title, dtype, precision in (
        ("bf16 TFLOP/s", torch.bfloat16, "highest"),
        ("TF32 TFLOP/s", torch.float32, "high"),
        ("float32 TFLOP/s", torch.float32, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        found[title] = product_speed(where, n, dtype)
    torch.set_float32_matmul_precision(before)
    source = torch.empty(4 * n * n, device=where)
    target = torch.empty_like(source)
    timed(partial(target.copy_, source), where, 3)
    found["copy GB/s"] = 1e-9 * 2 * source.nbytes / timed(partial(target.copy_, source), where, 10)
    return found
