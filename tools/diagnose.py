"""Say which layers of a trained network have lost rank."""

import sys
from pathlib import Path

# The repository instead of this folder, so that a clone needs no installation and no tool hides a package.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sslcollapse.cli import main

if __name__ == "__main__":
    sys.exit(main(["diagnose", *sys.argv[1:]]))
