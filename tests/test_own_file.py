"""Components that a recipe file registers, in commands on what was trained with them."""

import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from sslcollapse import DOMAINS, REGISTRIES, RegistryError, cli

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/adding-a-component.md").read_text()
(SENTENCES,) = (code for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "my_sentences" in code)
REMEDY = "if a recipe file registers it, name that file: --recipe FILE"


@contextmanager
def a_process_of_its_own():
    """What is registered inside is not known after it."""
    before = [(each, dict(each._targets), dict(each._factories)) for each in REGISTRIES.values()]
    try:
        yield
    finally:
        for registry, targets, factories in before:
            registry._targets, registry._factories = targets, factories
            registry._parameters.clear()


@pytest.fixture
def own():
    with a_process_of_its_own():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The recipe file of the guide, and a run of it, whose components are not known any more."""
    folder = tmp_path_factory.mktemp("own")
    file = folder / "my_domain.py"
    file.write_text(SENTENCES)
    words = ["train.steps=2", "train.checkpoint_every=1", "evaluate.public.k=2", "--out", str(folder / "runs")]
    with a_process_of_its_own():
        assert cli.main(["train", str(file), *words]) == 0
    (run,) = (folder / "runs").glob("my_domain/*/seed0")
    return file, run


def test_the_data_recipe_registers_the_encoder_of_the_target_that_is_diagnosed_on_it(trained, own, capsys):
    file, run = trained
    assert cli.main(["diagnose", str(run), "--data", str(file), "--fail-on", "never"]) == 0
    assert "representation" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["evaluate"], ["diagnose", "--fail-on", "never"]])
def test_a_run_of_a_recipes_own_components_names_the_option_that_makes_them_known(trained, own, capsys, command):
    file, run = trained
    assert cli.main([*command, str(run)]) == 2
    error = capsys.readouterr().err
    assert "unknown encoder 'my_counts'" in error
    assert REMEDY in error
    assert cli.main([*command, str(run), "--recipe", str(file)]) == 0


def test_an_unfinished_run_and_data_of_a_run_name_the_option_too(trained, own, capsys, tmp_path):
    file, run = trained
    half = shutil.copytree(run, tmp_path / "half")
    (half / "encoder.safetensors").unlink()
    assert cli.main(["diagnose", str(half)]) == 2
    assert REMEDY in capsys.readouterr().err
    data = ["--data", str(run / "recipe.json"), "--fail-on", "never"]
    assert cli.main(["diagnose", "timm:resnet18", *data]) == 2
    assert re.search(rf"--data: domain.type: unknown domain 'my_sentences'.*{REMEDY}", capsys.readouterr().err)
    assert cli.main(["diagnose", str(half), *data, "--recipe", str(file)]) == 0


def test_a_value_that_a_known_component_refuses_gets_no_advice_on_registering(trained, own, capsys, tmp_path):
    file, run = trained
    copy = shutil.copytree(run, tmp_path / "copy")
    description = (copy / "encoder.json").read_text()
    (copy / "encoder.json").write_text(description.replace('"batch_size": 16', '"batch_size": 0'))
    assert cli.main(["evaluate", str(copy), "--recipe", str(file)]) == 2
    error = capsys.readouterr().err
    assert "batch_size" in error
    assert REMEDY not in error


def test_a_recipe_file_that_nobody_names_is_not_run(trained, own, tmp_path):
    file, run = trained
    try:
        file.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n{SENTENCES}")
        assert cli.main(["evaluate", str(run)]) == 2
        assert not (tmp_path / "ran").exists()
        assert cli.main(["evaluate", str(run), "--recipe", str(file)]) == 0
        assert (tmp_path / "ran").exists()
    finally:
        file.write_text(SENTENCES)


def test_list_shows_what_a_recipe_file_registers_and_its_arguments(trained, own, capsys):
    file, _ = trained
    assert cli.main(["list", "domain"]) == 0
    assert "my_sentences" not in capsys.readouterr().out
    assert cli.main(["list", "--recipe", str(file), "domain"]) == 0
    assert "my_sentences  Sentences as lists of words; a view leaves some words out." in capsys.readouterr().out
    assert cli.main(["list", "domain", "my_sentences", "--recipe", str(file)]) == 0
    assert "deletion: a number in [0, 1]; default 0.3" in capsys.readouterr().out


def test_a_class_that_has_moved_into_a_package_is_to_be_removed_from_the_recipe_file(trained, own, capsys):
    file, _ = trained
    DOMAINS._targets["my_sentences"] = "basketpkg.domain:Sentences"  # as an entry point of that package says
    assert cli.main(["train", str(file), "--dry-run"]) == 2
    said = (
        "already registered by basketpkg.domain:Sentences; choose another name for my_domain:Sentences; or remove it "
    )
    assert f"{said}from my_domain.py, if basketpkg has it now" in capsys.readouterr().err


def test_a_name_of_this_package_is_taken_for_good(own):
    with pytest.raises(RegistryError, match=r"choose another name for [^;]*$"):
        DOMAINS.register("graph")(type("Graph", (), {}))
