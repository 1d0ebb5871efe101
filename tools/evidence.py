"""Write pages on the records of several grids, and on the statistics that all of them are judged by."""

import sys
from pathlib import Path

# The repository instead of this folder, so that a clone needs no installation and no tool hides a package.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sslcollapse.cli import run_command
from tools.evidence import parser

if __name__ == "__main__":
    sys.exit(run_command(parser(), sys.argv[1:]))
