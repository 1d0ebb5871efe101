# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own loop
#
# SimCLR in plain PyTorch on handwritten digits, with two additions: three lines for a monitor, two for a penalty.

# %%
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import sslcollapse as ssl

pixels = torch.tensor(load_digits().data[:768] / 16, dtype=torch.float32)
torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
projector = nn.Sequential(nn.ReLU(), nn.Linear(64, 32))
model = nn.Sequential(encoder, projector)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

# %% [markdown]
# The layer map names every matrix; the penalty and the monitor use these names.

# %%
for name, layer in ssl.layer_map(model).items():
    print(f"{name:6} depth {layer.depth}  {layer.shape}")

# %%
werank = ssl.WERank(model, coefficient=1e-3, layers="0.*")  # the encoder's layers, not the projector's


def views(batch):
    return [batch * (torch.rand_like(batch) > 0.3) for _ in range(2)]


def contrastive(first, second, temperature=0.2):
    """NT-Xent with one of the two directions."""
    similarity = F.normalize(first) @ F.normalize(second).T / temperature
    return F.cross_entropy(similarity, torch.arange(len(first)))


# %%
with ssl.CollapseMonitor(model, every=4) as monitor:
    for _epoch in range(3):
        for batch in pixels.split(128):
            loss = contrastive(*(model(view) for view in views(batch))) + werank()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rows = monitor.summary()
        print({row.layer: round(row.effective_rank, 1) for row in rows if row.kind == "output"})
assert len(monitor.history) == 3 * len(rows)

# %% [markdown]
# `monitor.plot("ranks.png")` draws ranks by layer and time, `monitor.to_pandas()` gives them as a table.
