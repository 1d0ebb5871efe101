"""Build the site of the documentation, and write the page of all methods: ``python tools/docs.py build``.

    build [--out DIR]   the site, from README.md, docs/ and docstrings; any warning is an error
    methods [--check]   docs/methods.md, from registries, recipes and records; or only say whether it is as it should be

Needs ``pip install 'sslcollapse[docs]'`` for the site.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "tools" / "site"
PARTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "LICENSE", "CITATION.cff")
FOLDERS = ("docs", "recipes")


def gather(folder: Path) -> None:
    """Copy what the site is made of into a folder, README.md as its first page; times of change are kept.

    A copy, because Sphinx looks through the whole folder that it is given, environments and runs included.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in PARTS:
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, folder / ("index.md" if name == "README.md" else name))
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", ".*"))


def build(out: Path) -> int:
    """Build the site into a folder and return the exit code of Sphinx."""
    from sphinx.cmd.build import main as sphinx

    source = out.with_name(f"{out.name}-source")
    gather(source)
    sys.path[:0] = [str(ROOT), str(SITE)]
    return sphinx(["-q", "-W", "--keep-going", "-b", "html", "-c", str(SITE), str(source), str(out)])


def methods(check: bool) -> int:
    """Write the page of all methods; or, with ``check``, only compare it, and return 1 where it differs."""
    sys.path[:0] = [str(ROOT), str(SITE)]
    from methods import page

    path, text = ROOT / "docs" / "methods.md", page()
    if check:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return 0
        print("docs/methods.md is not what `python tools/docs.py methods` writes; run it", file=sys.stderr)
        return 1
    path.write_text(text, encoding="utf-8")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands and return its exit code."""
    parser = argparse.ArgumentParser(description="Build the site of the documentation.")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="the site; any warning is an error")
    building.add_argument("--out", type=Path, default=ROOT / "build" / "site", metavar="DIR")
    table = commands.add_parser("methods", help="the page of all methods")
    table.add_argument("--check", action="store_true", help="write nothing; fail where the page is another")
    options = parser.parse_args(argv)
    return build(options.out) if options.command == "build" else methods(options.check)


if __name__ == "__main__":
    sys.exit(main())
