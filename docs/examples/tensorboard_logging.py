"""Ranks as curves in TensorBoard, and the monitor's picture beside them.

    python tensorboard_logging.py runs/mine && tensorboard --logdir runs/mine

An autoencoder of data that have 4 directions: few of a layer's many carry anything.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from sslcollapse import CollapseMonitor


def main(folder: str) -> None:
    """Train for five epochs; write curves to a folder."""
    torch.manual_seed(0)
    mixing = torch.randn(4, 32)
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with CollapseMonitor(model, every=5) as monitor, SummaryWriter(folder) as writer:
        for epoch in range(5):
            for _ in range(20):
                batch = torch.randn(128, 4) @ mixing / 2
                loss = (model(batch) - batch).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            writer.add_scalar("loss", loss.item(), epoch)
            rows = monitor.summary(step=epoch)
            for row in rows:
                writer.add_scalar(f"effective_rank/{row.kind}/{row.layer}", row.effective_rank, epoch)
        monitor.plot(Path(folder) / "ranks.png")
    for row in rows:
        print(f"{row.kind:6} of layer {row.layer}: rank {row.effective_rank:4.1f} of {row.attainable}")
    print(f"curves are in {folder}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/tensorboard")
