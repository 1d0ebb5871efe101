"""The first minutes: a recipe that ``init`` wrote trains, ``doctor`` tells the truth, examples are found by name."""

import json
import subprocess

import pytest

from sslcollapse import GRAPH_DATASETS, OBJECTIVES, SSLCollapseError, load_recipe
from sslcollapse.cli import main
from sslcollapse.recipe import resolve
from sslcollapse.start import BEGINNINGS, HEADS, SHELLS, starter
from sslcollapse.training import doctor


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("objective", sorted(HEADS))
@pytest.mark.parametrize("domain", sorted(BEGINNINGS))
def test_a_recipe_of_any_domain_and_objective_resolves_and_says_what_its_parts_are(domain, objective, tmp_path):
    text = starter("mine", domain, objective)
    file = tmp_path / "mine.py"
    file.write_text(text)
    recipe = resolve(load_recipe(file))
    assert (recipe["domain"]["type"], recipe["objective"]["type"]) == (domain, objective)
    assert recipe["regularizers"]["werank"]["coefficient"] > 0
    lines = text.splitlines()
    for part in ("domain", "encoder", "objective", "regularizers", "optim", "train", "monitor", "evaluate"):
        (at,) = [number for number, line in enumerate(lines) if line.startswith(f"    {part}=dict(")]
        assert lines[at - 1].startswith(f"    # {part}: ")
    assert max(map(len, lines)) <= 120


def test_init_knows_every_objective_of_this_package_but_the_adapter_and_the_one_of_masked_views():
    ours = {name for name, at in OBJECTIVES._targets.items() if at.startswith("sslcollapse.")}
    assert ours - HEADS.keys() == {"lightly", "graphmae"}


@pytest.mark.parametrize("words", [["--domain", "toy"], ["--domain", "graph", "--objective", "cca_ssg"]])
def test_a_recipe_that_init_wrote_trains(words, tmp_path, capsys):
    assert main(["init", *words]) == 0
    assert "sslcollapse train recipe.py" in capsys.readouterr().out
    shorter = ["train.steps=2", "optim.warmup_steps=0", "monitor.every=0", "evaluate={}"]
    assert main(["train", "recipe.py", *shorter]) == 0
    assert list(tmp_path.glob("runs/recipe/*/seed0/result.json"))


def test_init_writes_over_no_file(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("kept")
    assert main(["init", "mine.py"]) == 2
    assert "there is a file of this name already" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "kept"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--domain", "grpah"], "did you mean 'graph'?"),
        (["--objective", "bgrll"], "did you mean 'bgrl'?"),
        (["--regularizer", "weranck"], "did you mean 'werank'?"),
    ],
)
def test_a_misspelt_part_is_suggested_and_nothing_is_written(words, message, tmp_path, capsys):
    assert main(["init", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_doctor_tells_without_a_network_which_data_are_there(no_network, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSLCOLLAPSE_DATA", str(tmp_path / "data"))
    (raw,) = GRAPH_DATASETS.build({"type": "citation_full", "name": "Cora_ML"}, tmp_path / "data").files()
    raw.parent.mkdir(parents=True)
    raw.touch()
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    states = {each["name"]: each["state"] for each in found["data"]}
    assert states["graph digits"] == "embedded"
    assert states["graph planetoid Cora"] == "8 of 8 files missing"
    assert states["graph citation_full Cora_ML"] == "there"
    assert found["data_root_from"] == "SSLCOLLAPSE_DATA"
    assert found["components"]["objective"] >= 8
    assert "processor" in found["devices"]
    assert "bgrl_werank_cora" in found["examples"]


def test_doctor_names_a_package_that_is_missing_or_too_old_and_ends_with_1(monkeypatch, capsys):
    stated = ["torch>=2.11", "numpy>=99", 'no-such-package>=1; extra == "slurm"', "none-either>=2"]
    monkeypatch.setattr(doctor, "requires", lambda name: stated)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    problems = said.partition("What does not work:")[2]
    assert "pip install 'numpy>=99'" in problems
    assert "none-either is not installed" in problems
    assert "torch" not in problems
    assert "no-such-package" not in problems
    assert "slurm              lacks no-such-package" in said


def test_an_example_is_found_by_its_name_and_a_file_of_that_name_comes_first(tmp_path):
    assert load_recipe("quickstart")["name"] == "quickstart"
    (tmp_path / "quickstart").write_text("")
    with pytest.raises(SSLCollapseError, match="defines no `recipe`"):
        load_recipe("quickstart")


def test_a_misspelt_example_is_suggested():
    with pytest.raises(SSLCollapseError, match=r"quikstart: no such file; did you mean 'quickstart'\?"):
        load_recipe("quikstart")


def test_a_name_with_a_folder_or_an_ending_is_a_file_and_no_example():
    for path in ("./x/quickstart", "quickstart.py"):
        with pytest.raises(SSLCollapseError, match="no such file"):
            load_recipe(path)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_a_script(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    assert "diagnose" in capsys.readouterr().out


def test_bash_completes_commands_options_and_files(tmp_path, capsys):
    pytest.importorskip("shtab")
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "my_recipe.py").touch()

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source ./script; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_sslcollapse 2>/dev/null; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True).stdout.split()

    assert completed("sslcollapse", "dia") == ["diagnose"]
    assert "--overwrite" in completed("sslcollapse", "train", "--o")
    assert completed("sslcollapse", "train", "my_") == ["my_recipe.py"]
