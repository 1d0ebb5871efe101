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
# # Collapse in five minutes
#
# A network is to give two noisy views of a sample the same output. Nothing keeps it from giving *all* samples nearly the
# same output. The loss falls, and with it the number of dimensions that the outputs fill.
#
# Without the package: `%pip install sslcollapse`, once it is published, or `%pip install -e .` from a clone.

# %%
import torch
from torch import nn

import sslcollapse as ssl

samples = torch.randn(512, 32, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))


def train(coefficient, steps=150):
    """A trained network, and the effective rank of its outputs every 30 steps."""
    model, ranks = network(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    werank = ssl.WERank(model, coefficient=coefficient)
    for step in range(steps):
        if step % 30 == 0:
            ranks.append(round(ssl.effective_rank(model(samples).detach(), centred=True), 1))
        first, second = (model(samples + 0.3 * torch.randn_like(samples)) for _ in range(2))
        loss = (first - second).square().sum(1).mean() + werank()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ranks.append(round(ssl.effective_rank(model(samples).detach(), centred=True), 1))
    return model, ranks


# %% [markdown]
# ## It collapses
#
# Effective rank counts how many dimensions singular values fill; 32 are attainable here.

# %%
collapsed, without = train(coefficient=0.0)
print("without WERank, every 30 steps:", without)

# %% [markdown]
# ## Where is it lost?
#
# `CollapseMonitor` shows each layer's weight and output.

# %%
with ssl.CollapseMonitor(collapsed, every=1) as monitor:
    collapsed(samples)
    for row in monitor.summary():
        print(f"layer {row.layer}  {row.kind:6}  {row.effective_rank:5.1f} of {row.attainable}")

# %% [markdown]
# ## A penalty on the weights keeps it
#
# WERank is Σ α ‖WᵀW − I‖: it is least where all singular values of a weight are one.

# %%
kept, with_werank = train(coefficient=0.1)
print("with WERank, every 30 steps:   ", with_werank)
assert with_werank[-1] > without[-1]

# %% [markdown]
# More rank is not by itself more accuracy: what was measured on real graphs and images, for and against, is on the page of results.
