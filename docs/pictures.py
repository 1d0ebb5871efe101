"""The pictures of the library guide: a network that collapses on handwritten digits, and the same with WERank.

    python docs/pictures.py [FOLDER [STEPS]]

A plain loop: two noisy views of a digit are pulled together, and nothing keeps different digits apart. Both runs have
the same initialisation and the same batches.
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from sslcollapse import CollapseMonitor, WERank
from sslcollapse.diagnostics.course_plot import rank_heat_map, spectrum_fan

WIDTH, LAYERS, BATCH, PICTURES = 128, 5, 256, 15
LAST = f"layer{LAYERS}"


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


def main(folder: Path, steps: int) -> dict[str, CollapseMonitor]:
    """Both runs, and their pictures side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = {"without WERank": train(0.0, steps), "with WERank": train(0.1, steps)}
    rank_heat_map({title: monitor.history for title, monitor in runs.items()}, folder / "rank_by_depth.png")
    fans = {title: monitor.spectra_over_time(f"output/{LAST}") for title, monitor in runs.items()}
    spectrum_fan(fans, folder / "spectrum_fan.png")
    for title, monitor in runs.items():
        rows = [row for row in monitor.history if row.kind == "output" and row.layer == LAST]
        ends = " to ".join(f"{row.effective_rank:.1f}" for row in (rows[0], rows[-1]))
        print(f"{title}: effective rank of the representation {ends} of {rows[-1].attainable}")
    return runs


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures",
        int(sys.argv[2]) if len(sys.argv) > 2 else 300,
    )
