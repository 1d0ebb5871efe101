"""Make an HTML page of runs or of an ablation, with tables and plots."""

import sys
from pathlib import Path

# The repository instead of this folder, so that a clone needs no installation and no tool hides a package.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sslcollapse.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
