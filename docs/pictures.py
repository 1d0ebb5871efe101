"""Every picture of the guides, each with the numbers that it shows inside it.

    python docs/pictures.py [FOLDER [STEPS]]

FOLDER (by default ``docs``) gets ``pictures/`` and ``images/``. The numbers are JSON in the PNG's text ``numbers``;
``tests/test_pictures.py`` compares them with the records, and fails where a picture is older than they are.

Two pictures are of a plain loop: two noisy views of a digit are pulled together, and nothing keeps different digits
apart. Both runs have the same initialisation and the same batches.
"""

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sklearn.datasets import load_digits
from torch import nn

from sslcollapse import CollapseMonitor, WERank
from sslcollapse.rank.diagnose.diagnosis import Diagnosis, diagnose_weights
from sslcollapse.rank.diagnose.picture import draw
from sslcollapse.rank.diagnose.targets import load_target
from sslcollapse.rank.plots import (
    attainable_over_time,
    drawn_steps,
    heat_map_cells,
    rank_heat_map,
    relative,
    spectrum_fan,
)
from sslcollapse.report.ablation_page import ablation_page, from_folder
from sslcollapse.report.plot import Plot

DOCS = Path(__file__).parent
WIDTH, LAYERS, BATCH, PICTURES, STEPS = 128, 5, 256, 15, 300
LAST = f"layer{LAYERS}"

RECORDS = "results/objectives_citation"
FOREST = "forest-public.test_accuracy"
"""Name of the plot of that report that ``report.md`` shows."""


def network() -> nn.Sequential:
    """64 pixels → WIDTH features."""
    torch.manual_seed(0)
    model = nn.Sequential()
    for number in range(1, LAYERS + 1):
        model.add_module(f"layer{number}", nn.Linear(64 if number == 1 else WIDTH, WIDTH, bias=False))
        if number < LAYERS:
            model.add_module(f"act{number}", nn.ReLU())
    return model


def train(coefficient: float, steps: int) -> CollapseMonitor:
    """Train with a coefficient of WERank; → what a monitor saw."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    werank = WERank(model, coefficient=coefficient)
    digits = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    digits -= digits.mean(0)
    torch.manual_seed(1)
    with CollapseMonitor(model, every=5) as monitor:
        for step in range(steps + 1):
            batch = digits[torch.randint(len(digits), (BATCH,))]
            a, b = (model(batch + 0.3 * torch.randn_like(batch)) for _ in range(2))
            if step % max(steps // PICTURES, 1) == 0:
                monitor.summary(step=step)
            loss = (a - b).square().sum(1).mean() + werank()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return monitor


def both(steps: int = STEPS) -> dict[str, CollapseMonitor]:
    """The two runs."""
    return {"without WERank": train(0.0, steps), "with WERank": train(0.1, steps)}


def map_numbers(runs: dict[str, CollapseMonitor]) -> Any:
    """What the heat maps show: rank over what is attainable, layers × steps."""
    maps = {title: heat_map_cells(monitor.history, "output") for title, monitor in runs.items()}
    return {
        title: {"layers": layers, "steps": steps, "fractions": cells.round(4).tolist()}
        for title, (layers, steps, cells) in maps.items()
    }


def fan_numbers(runs: dict[str, CollapseMonitor]) -> Any:
    """What the fans show: σ_k/σ_1 at each step that has a line, and what is attainable."""
    found: dict[str, Any] = {}
    for title, monitor in runs.items():
        spectra = monitor.spectra_over_time(f"output/{LAST}")
        limits = attainable_over_time(monitor.history, f"output/{LAST}")
        for step in drawn_steps(spectra):
            shares = relative(spectra[step])
            lines = found.setdefault(title, {})
            lines[str(step)] = {
                "attainable": limits[step],
                "shares": [] if shares is None else [float(f"{share:.3g}") for share in shares],
            }
    return found


def collapsed() -> Diagnosis:
    """The diagnosis of the network that the guide of ``diagnose`` makes."""
    block = re.search(r"```python\n# collapsed\.py\n(.*?)```", (DOCS / "diagnose.md").read_text(), re.DOTALL)
    if block is None:
        raise SystemExit("docs/diagnose.md has no block '# collapsed.py' to run")
    with tempfile.TemporaryDirectory() as folder, _inside(Path(folder)):
        exec(compile(block[1], "collapsed.py", "exec"), {})
        return diagnose_weights(load_target("collapsed.pt"))


def diagnosis_numbers(diagnosis: Diagnosis) -> Any:
    """What the picture of a diagnosis shows, but for the spectra, whose effective rank it is."""
    return {
        layer.name: {
            "effective_rank": round(layer.weight.rank.effective_rank, 2),
            "attainable": layer.weight.rank.attainable,
            "of_random": round(layer.weight.share, 3),
            "verdict": layer.verdict,
        }
        for layer in diagnosis.layers
    }


def forest() -> Plot:
    """The plot of a report, from the committed records."""
    page = ablation_page(from_folder(DOCS / RECORDS), Path("no run directories"))
    return next(plot for section in page.sections for plot in section.plots if plot.name == FOREST)


def forest_numbers(plot: Plot) -> Any:
    """The rows that are drawn: mean, ends of the interval, n."""
    return [dict(zip(plot.heads, row, strict=True)) for row in plot.rows]


def main(folder: Path, steps: int) -> dict[str, CollapseMonitor]:
    """Write every picture; → the two runs."""
    pictures, images = folder / "pictures", folder / "images"
    for place in (pictures, images):
        place.mkdir(parents=True, exist_ok=True)
    runs = both(steps)
    rank_heat_map({title: monitor.history for title, monitor in runs.items()}, pictures / "rank_by_depth.png")
    _stamp(pictures / "rank_by_depth.png", "a loop in docs/pictures.py", map_numbers(runs))
    key = f"output/{LAST}"
    spectrum_fan(
        {title: monitor.spectra_over_time(key) for title, monitor in runs.items()},
        pictures / "spectrum_fan.png",
        attainable={title: attainable_over_time(monitor.history, key) for title, monitor in runs.items()},
    )
    _stamp(pictures / "spectrum_fan.png", "a loop in docs/pictures.py", fan_numbers(runs))
    diagnosis = collapsed()
    draw(diagnosis, images / "collapsed.png")
    _stamp(images / "collapsed.png", "the network in docs/diagnose.md", diagnosis_numbers(diagnosis))
    plot = forest()
    (images / "report.png").write_bytes(plot.render()[1])
    _stamp(images / "report.png", f"docs/{RECORDS}/runs.jsonl", forest_numbers(plot))
    for title, monitor in runs.items():
        rows = [row for row in monitor.history if row.kind == "output" and row.layer == LAST]
        ends = " to ".join(f"{row.effective_rank:.1f}" for row in (rows[0], rows[-1]))
        print(f"{title}: effective rank of the representation {ends} of {rows[-1].attainable}")
    return runs


def _stamp(path: Path, source: str, numbers: Any) -> None:
    """Put the numbers of a picture into it."""
    info = PngInfo()
    info.add_text("made by", "python docs/pictures.py")
    info.add_text("from", source)
    info.add_text("numbers", json.dumps(numbers), zip=True)
    with Image.open(path) as image:
        image.load()
        image.save(path, pnginfo=info, optimize=True)


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS,
        int(sys.argv[2]) if len(sys.argv) > 2 else STEPS,
    )
