"""PyTorch Geometric is imported without the warning that it causes."""

import subprocess
import sys
from pathlib import Path

import pytest

USES = {
    "encoder": "from sslcollapse.encoders.pyg import PyG; PyG((3,), module='GCN', out_dim=2, "
    "kwargs=dict(hidden_channels=2, num_layers=1))",
    "loader": "from sslcollapse.domains.graph.datasets import PPI; PPI('.').loader('.')",
    "module": "from sslcollapse.nn.sparse import import_geometric; assert import_geometric('utils').to_undirected",
}


@pytest.mark.parametrize("use", USES)
def test_nothing_is_printed_when_python_uses_pytorch_geometric_through_this_package(use):
    run = subprocess.run(
        [sys.executable, "-c", USES[use]], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert (run.returncode, run.stderr) == (0, "")
