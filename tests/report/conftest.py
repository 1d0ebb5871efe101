from pathlib import Path

import pytest
from report_records import RECIPE, record, write_records


@pytest.fixture(scope="package")
def trained(tmp_path_factory) -> Path:
    """A finished run; not to be changed."""
    from sslcollapse.training.trainer import train

    return train(RECIPE, out=tmp_path_factory.mktemp("runs"), command=["sslcollapse", "train", "tiny.py"])


@pytest.fixture(scope="package")
def results(tmp_path_factory) -> Path:
    """Records of two bases × three coefficients × three seeds."""
    rows = [
        record(base, coefficient, seed, 0.7 + 0.01 * seed + gain * (1 + 0.1 * seed), 3 + 10 * gain + 0.1 * seed)
        for base in ("Cora", "Site <b>")
        for coefficient, gain in ((None, 0.0), (0.01, 0.02), (0.1, 0.05))
        for seed in range(3)
    ]
    return write_records(tmp_path_factory.mktemp("results") / "grid", rows)
