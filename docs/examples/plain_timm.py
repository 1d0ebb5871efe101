"""A plain PyTorch loop, a model of timm, and the three lines that watch and prevent collapse.

A vision transformer learns to give two crops of an image one embedding (SimSiam). After each epoch the rank of
the outputs of its MLPs is printed, with its share of what weight and rows allow.
"""

import timm
import torch
import torch.nn.functional as F
from torch import nn

from sslcollapse import CollapseMonitor, WERank

EPOCHS, STEPS, BATCH = 3, 6, 64


def images(n: int) -> torch.Tensor:
    """Gratings of a random direction, frequency and colour: [n, 3, 40, 40]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 40), indexing="ij")
    wave = 6.3 * (x * torch.randint(-4, 5, (n, 1, 1)) + y * torch.randint(1, 5, (n, 1, 1)))
    return torch.sin(wave)[:, None] * torch.rand(n, 3, 1, 1)


def crop(batch: torch.Tensor) -> torch.Tensor:
    """One random 32 × 32 window for all, with noise."""
    top, left = torch.randint(0, 9, (2,)).tolist()
    window = batch[:, :, top : top + 32, left : left + 32]
    return window + 0.1 * torch.randn_like(window)


def main() -> None:
    """Train, and print ranks after each epoch."""
    torch.manual_seed(0)
    encoder = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=0
    )
    predictor = nn.Sequential(nn.Linear(48, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 48))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *predictor.parameters()], lr=1e-3)

    werank = WERank(encoder, coefficient=1e-2)
    with CollapseMonitor(encoder, layers="blocks.*.mlp.*", every=2) as monitor:
        for epoch in range(EPOCHS):
            for _ in range(STEPS):
                batch = images(BATCH)
                a, b = encoder(crop(batch)), encoder(crop(batch))
                similarity = F.cosine_similarity(predictor(a), b.detach()) + F.cosine_similarity(
                    predictor(b), a.detach()
                )
                loss = -similarity.mean() / 2 + werank()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            print(f"epoch {epoch}: loss {loss.item():.3f}")
            for row in monitor.summary(step=epoch):
                if row.kind == "output":
                    print(f"  {row.layer:16} rank {row.effective_rank:5.1f}, {100 * row.fraction:3.0f} %")


if __name__ == "__main__":
    main()
