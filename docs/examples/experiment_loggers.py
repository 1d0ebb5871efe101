"""Ranks in an experiment logger: a curve for every layer, and heat map and spectra as pictures every third epoch.

    python experiment_loggers.py tensorboard runs/mine && tensorboard --logdir runs/mine
    python experiment_loggers.py wandb runs/mine        offline: nothing is sent
    python experiment_loggers.py trackio runs/mine && trackio show
    python experiment_loggers.py mlflow runs/mine

An autoencoder of data that have 4 directions: few of a layer's many carry anything.
"""

import os
import sys
from pathlib import Path

import torch
from torch import nn

from sslcollapse import CollapseMonitor


def tensorboard(folder: Path):
    """A SummaryWriter takes curves and pictures by itself."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    return writer, None, writer.close


def wandb(folder: Path):
    """Weights & Biases, offline."""
    import wandb

    run = wandb.init(project="ranks", mode="offline", dir=folder)
    return run.log, lambda name, pixels, step: run.log({name: wandb.Image(pixels)}, step=step), run.finish


def trackio(folder: Path):
    """Trackio keeps its data base in a folder of this machine."""
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    trackio.init(project="ranks")
    return trackio.log, lambda name, pixels, step: trackio.log({name: trackio.Image(pixels)}, step=step), trackio.finish


def mlflow(folder: Path):
    """MLflow with its files in a folder."""
    os.environ.update(MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_DISABLE_TELEMETRY="true")
    import mlflow

    mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
    mlflow.start_run()
    return mlflow.log_metrics, lambda name, pixels, step: mlflow.log_image(pixels, key=name, step=step), mlflow.end_run


LOGGERS = {"tensorboard": tensorboard, "wandb": wandb, "trackio": trackio, "mlflow": mlflow}


def main(name: str, folder: Path) -> None:
    """Train for five epochs; log to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    logger, picture, close = LOGGERS[name](folder)
    torch.manual_seed(0)
    mixing = torch.randn(4, 32)
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with CollapseMonitor(model, every=5) as monitor:
        for epoch in range(5):
            for _ in range(20):
                batch = torch.randn(128, 4) @ mixing / 2
                loss = (model(batch) - batch).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            rows = monitor.log(logger, epoch, picture=picture, pictures_every=3)
    close()
    for row in rows:
        print(f"{row.kind:6} of layer {row.layer}: rank {row.effective_rank:4.1f} of {row.attainable}")
    print(f"what was logged is in {folder}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tensorboard", Path(sys.argv[2] if len(sys.argv) > 2 else "runs/logged"))
