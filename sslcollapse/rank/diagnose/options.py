"""The options of ``sslcollapse diagnose``; torch is not imported before it runs."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Targets, and what to do with them."""
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help="a run directory, an exported encoder.safetensors, a .safetensors or .pt state dict, a folder of shards, "
        "timm:MODEL, torchvision:MODEL or hf:ORG/NAME; two are compared, the base first; three or more are a series",
    )
    parser.add_argument(
        "--data", type=Path, metavar="RECIPE", help="also measure outputs, on the probe set of this recipe"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each weight and output here")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw spectra and ranks by depth here")
    parser.add_argument(
        "--samples", type=_positive, metavar="N", help="most samples that are used (default: 1024; of graphs all nodes)"
    )
    parser.add_argument(
        "--columns", default="", metavar="A,B", help="more of every weight, such as alpha,spikes; all for every one"
    )
    parser.add_argument("--entry", metavar="NAME", help="of a checkpoint with several networks: student, teacher, ...")
    parser.add_argument("--series", action="store_true", help="two targets are a series, and not compared")
    parser.add_argument("--gallery", type=Path, metavar="DIR", help="add this checkpoint to the gallery in a folder")
    parser.add_argument(
        "--pretrained",
        action="store_true",
        help="published weights of a model by name (default: random ones)",
    )
    parser.add_argument(
        "--fail-on",
        choices=("collapsed", "degrading", "never"),
        default="collapsed",
        help="the mildest verdict on a layer that makes the exit code 1 (default: collapsed)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from sslcollapse.rank.diagnose.entry import run_diagnosis

    return run_diagnosis(
        options.targets,
        data=options.data,
        files={word: getattr(options, word) for word in ("json", "csv", "html", "plot")},
        samples=options.samples,
        pretrained=options.pretrained,
        fail_on=options.fail_on,
        columns=[name.strip() for name in options.columns.split(",") if name.strip()],
        entry=options.entry,
        series=options.series,
        gallery=options.gallery,
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)
