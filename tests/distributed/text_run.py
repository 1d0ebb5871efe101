"""A run of several processes whose second one gets a signal in the last step.

python text_run.py OUT
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import text_parts

from sslcollapse import cli
from sslcollapse.core.registry import DOMAINS
from sslcollapse.core.types import Batch, Context

RECIPE = text_parts.text_recipe("last", domain=dict(type="stopping_text"))
STEPS = RECIPE["train"]["steps"]


class StoppingText(text_parts.TextDomain):
    """Sentences; the batch of the last step comes with a signal."""

    def batches(self, start_step: int, context: Context) -> Iterator[Batch]:
        for step, batch in enumerate(super().batches(start_step, context), start_step):
            if step == STEPS - 1 and context.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def register() -> None:
    """All parts of the recipe."""
    text_parts.register()
    DOMAINS.register("stopping_text")(StoppingText)


if __name__ == "__main__":
    register()
    out = sys.argv[1]
    sys.exit(cli.main(["train", f"{out}/recipe.json", "--out", out]))
