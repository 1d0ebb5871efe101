"""What pyproject.toml cannot say: the recipes at the top of the repository are the examples within the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExamples(build_py):
    """Copies ``recipes/`` to ``sslcollapse/examples/``; an editable installation reads them where they are."""

    def run(self) -> None:
        """Build the package, then add the examples."""
        super().run()
        if not self.editable_mode:
            examples = Path(self.build_lib, "sslcollapse", "examples")
            shutil.copytree("recipes", examples, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithExamples})
