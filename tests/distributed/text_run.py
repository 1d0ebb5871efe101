"""A run of several processes whose second one gets a signal in the last step.

python text_run.py OUT
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import text_parts

from sslcollapse import cli
from sslcollapse.core.registry import DOMAINS
from sslcollapse.core.types import Batch, Context

RECIPE = text_parts.text_recipe("last", domain=dict(type="stopping_text"))
STEPS = RECIPE["train"]["steps"]


class StoppingBatches(text_parts.TextBatches):
    """The batch of the last step comes with a signal."""

    def __next__(self) -> Batch:
        if self.step == STEPS - 1 and self.context.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__next__()


class StoppingText(text_parts.TextDomain):
    """Sentences in such batches."""

    def batches(self, start_step: int, context: Context) -> StoppingBatches:
        return StoppingBatches(self.ids, start_step, context)


def register() -> None:
    """All parts of the recipe."""
    text_parts.register()
    DOMAINS.register("stopping_text")(StoppingText)


if __name__ == "__main__":
    register()
    out = sys.argv[1]
    sys.exit(cli.main(["train", f"{out}/recipe.json", "--out", out]))
