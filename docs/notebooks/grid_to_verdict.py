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
# # From grid to verdict
#
# An ablation file says which runs there are, and a claim in it what is expected of them, before they run. Here both are small
# enough to run while you look: a deep linear network on noise, with and without WERank.

# %%
import json
import tempfile
from pathlib import Path

from sslcollapse.ablation import run_ablation

folder = Path(tempfile.mkdtemp())

# %%
(folder / "toy.py").write_text(
    """
recipe = dict(
    name="toy",
    domain=dict(type="toy", dim=8, views=dict(noise=1e-3), batch_size=64),
    encoder=dict(type="linear", hidden=[8, 8, 8], decay=0.35),
    objective=dict(type="simclr", similarity="dot", temperature=0.1, projector=[]),
    regularizers=dict(werank=dict(type="werank", coefficient=1.0)),
    optim=dict(type="sgd", lr=1e-2, weight_decay=0.0, schedule="constant"),
    train=dict(steps=200),
    monitor=dict(every=0),
    evaluate=dict(),
)
"""
)

# %% [markdown]
# The claim: WERank raises the rank of the representation by more than 1 % of what is attainable, which is the least that counts. Five seeds are the least that a test takes.

# %%
(folder / "mine.py").write_text(
    """
ablation = dict(
    name="mine",
    base="toy.py",
    axes={"regularizers.werank.coefficient": [0.0, 1.0]},
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
    metrics=["rank.representation.effective_rank"],
    claim=dict(
        number=1,
        statement="WERank raises the rank of a deep linear network.",
        checks=[
            dict(
                name="rank rises",
                metric="rank.representation.effective_rank",
                expect="positive",
            )
        ],
    ),
)
"""
)

# %% [markdown]
# `run_ablation` is what `sslcollapse ablate mine.py` calls. It trains what has no record yet, so running it again is cheap.

# %%
run_ablation(folder / "mine.py", executor="debug", out=folder / "runs", results=folder / "results")

# %% [markdown]
# The page has the verdict, each test with its interval, and the table. All of it is computed from the records alone.

# %%
page = (folder / "results/mine/README.md").read_text()
print(page[:1500])

# %%
claim = json.loads((folder / "results/mine/claim.json").read_text())
print(claim["verdict"])
assert "10 of 10 runs" in page

# %% [markdown]
# Five seeds of a small effect often decide nothing, and the verdict then says so. The page's table *Seeds that the tests need* says
# how many would; `sslcollapse ablate mine.py --until-decided 40` adds them until the test is decided.
