"""Small probe sets for the tests of the probes."""

import numpy as np
import torch

from sslcollapse.core.types import ProbeSet, Split


def noisy(n=240, d=12, classes=4, seed=0, signal=0.6):
    """Weakly informative features and one public split of thirds."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    features = torch.randn(n, d, generator=generator)
    features[torch.arange(n), labels] += signal
    split = Split(*np.array_split(np.random.default_rng(seed).permutation(n), 3))
    return features, ProbeSet((), labels, classes, {"public": [split]})
