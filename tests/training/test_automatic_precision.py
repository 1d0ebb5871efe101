"""``train.precision="auto"``: bf16 where the processor multiplies in it, said in the log and kept by a resumed run."""

import json

import pytest
from accelerate import Accelerator
from tiny import tiny_recipe

from sslcollapse.core import precision
from sslcollapse.recipe import override, recipe_hash, resolve
from sslcollapse.training.trainer import train

RECIPE = tiny_recipe(
    "auto",
    seed=0,
    optim=dict(type="adamw", lr=1e-2, warmup_steps=0),
    train=dict(steps=2, log_every=1, precision="auto"),
    monitor=dict(every=0),
    evaluate={},
)
WITH = "flags\t\t: fpu sse2 avx512f avx512_bf16 amx_tile"
WITHOUT = "flags\t\t: fpu sse2 avx512f avx512_vnni"


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Gives the flags of the processor, as Linux shows them."""
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def write(text):
        precision.CPUINFO.write_text(text)

    return write


def recorded(run):
    return json.loads((run / "environment.json").read_text())["precision"]["autocast"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [(WITH, "bf16"), (WITHOUT, "no"), ("flags : amx_bf16", "bf16"), ("Features : asimd bf16", "bf16"), ("", "no")],
)
def test_automatic_precision_is_bf16_only_with_instructions_for_it(processor, text, expected):
    processor(text)
    assert precision.automatic() == expected


def test_without_a_description_of_the_processor_nothing_is_changed(processor):
    assert precision.automatic() == "no"


@pytest.mark.parametrize(("text", "other"), [(WITH, "bf16"), (WITHOUT, "no")])
def test_a_run_says_what_was_chosen_and_is_the_run_that_states_it(processor, tmp_path, text, other):
    processor(text)
    run = train(RECIPE, out=tmp_path / "auto")
    assert recorded(run) == other
    assert f"train.precision: 'auto' is '{other}' on " in (run / "train.log").read_text()
    stated = train(override(RECIPE, [f"train.precision={other}"]), out=tmp_path / "stated")
    lines = [[json.loads(line)["loss"] for line in (r / "metrics.jsonl").open()] for r in (run, stated)]
    assert lines[0] == lines[1]
    assert "train.precision" not in (stated / "train.log").read_text()


def test_a_resumed_run_keeps_the_precision_that_it_was_begun_in(processor, tmp_path):
    processor(WITH)
    run = train(override(RECIPE, ["train.checkpoint_every=1"]), out=tmp_path)
    (run / "result.json").unlink()
    processor(WITHOUT)
    assert recorded(train(override(RECIPE, ["train.checkpoint_every=1"]), out=tmp_path, resume=True)) == "bf16"
    assert recorded(train(RECIPE, out=tmp_path, overwrite=True)) == "no"


def test_a_process_with_an_accelerator_has_chosen_already(processor, tmp_path):
    processor(WITH)
    Accelerator(cpu=True)
    assert recorded(train(RECIPE, out=tmp_path)) == "no"


def test_the_hash_of_a_recipe_does_not_depend_on_the_processor_and_the_default_is_float32(processor):
    hashes = []
    for text in (WITH, WITHOUT):
        processor(text)
        hashes.append(recipe_hash(resolve(RECIPE)))
    assert hashes[0] == hashes[1]
    assert resolve(tiny_recipe("plain", optim=RECIPE["optim"], train=dict(steps=2)))["train"]["precision"] == "no"
