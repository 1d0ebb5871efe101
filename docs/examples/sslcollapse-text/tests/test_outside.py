"""What makes it a plug-in: it is found by its entry points, and knows no room of sslcollapse."""

import ast
import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from parts import write_tables

from sslcollapse import DOMAINS, ENCODERS, REGISTRIES, load_recipe
from sslcollapse_text.command import main

HERE = Path(__file__).resolve().parents[1]
RECIPES = sorted((HERE / "recipes").glob("*.py"))
ABLATIONS = sorted((HERE / "recipes" / "ablations").glob("*.py"))


@pytest.fixture(scope="module")
def sslcollapse():
    (point,) = {p.value: p for p in entry_points(group="console_scripts", name="sslcollapse")}.values()
    return point.load()


def test_it_imports_names_of_sslcollapse_itself_and_of_none_of_its_rooms():
    places = [path for folder in ("sslcollapse_text", "recipes", "tests") for path in (HERE / folder).rglob("*.py")]
    assert len(places) > 20
    for path in places:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                assert not (module or "").startswith("sslcollapse."), f"{path}: {module}"


def test_components_are_found_by_entry_points_and_say_where_they_come_from():
    assert "text" in DOMAINS.names()
    assert {"transformer", "huggingface_text"} <= set(ENCODERS.names())
    assert REGISTRIES["text_dataset"].names() == ["docstrings", "text_table"]
    origins = [DOMAINS.origin("text"), ENCODERS.origin("transformer"), REGISTRIES["text_dataset"].origin("docstrings")]
    assert origins == ["sslcollapse-text 0.1.0"] * 3


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path, sslcollapse, capsys):
    assert load_recipe(path)["name"] == path.stem
    few = [] if "digits" in path.stem else ["domain.dataset.packages=['rich', 'timm']", "domain.dataset.per_class=40"]
    assert sslcollapse(["train", str(path), *few, "domain.batch_size=32" if few else "seed=0", "--dry-run"]) == 0
    assert path.stem in capsys.readouterr().out


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_every_ablation_is_valid(path, sslcollapse, tmp_path, capsys):
    assert sslcollapse(["ablate", str(path), "--dry-run", "--results", str(tmp_path)]) == 0
    assert path.stem in capsys.readouterr().out


def test_werank_recipes_differ_from_their_bases_by_the_regularizer_alone():
    for objective in ("simclr", "byol", "vicreg"):
        base, own = (load_recipe(HERE / "recipes" / f"{objective}{werank}_text.py") for werank in ("", "_werank"))
        assert own.pop("regularizers")["werank"]["type"] == "werank"
        assert base.pop("regularizers") == {}
        assert {**base, "name": own["name"]} == own


def test_an_encoder_of_images_is_refused_by_name(sslcollapse, capsys):
    recipe = str(HERE / "recipes" / "simclr_text.py")
    assert sslcollapse(["train", recipe, "encoder=dict(type='resnet18')", "--dry-run"]) == 2
    assert "sequence" in capsys.readouterr().err


def test_the_command_counts_texts_writes_the_tokenizer_and_evaluates_bags_of_words(tmp_path, capsys):
    recipe = tmp_path / "tiny.json"
    domain = dict(type="text", dataset=write_tables(tmp_path), batch_size=16, vocabulary=400)
    evaluate = dict(knn=dict(type="knn", k=5))
    recipe.write_text(json.dumps(dict(name="tiny", domain=domain, evaluate=evaluate)))
    assert main(["corpus", str(recipe), "--json", str(tmp_path / "corpus.json")]) == 0
    corpus = json.loads((tmp_path / "corpus.json").read_text())
    assert corpus["texts"] == 210
    assert (
        corpus["classes"]["food"] == {"train": 54, "validation": 6, "test": 10}
        or sum(part["validation"] for part in corpus["classes"].values()) == 18
    )
    assert main(["tokenizer", str(recipe), "--out", str(tmp_path / "made" / "tokenizer.json")]) == 0
    assert json.loads((tmp_path / "made" / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    assert main(["baseline", str(recipe), "--json", str(tmp_path / "bag.json")]) == 0
    bag = json.loads((tmp_path / "bag.json").read_text())
    assert bag["evaluation"]["knn"]["test_accuracy"]["mean"] == 1.0  # every topic has words of its own
    assert bag["n"] == {"texts": 210, "dimensions": 400, "classes": 3}
    recipe.write_text(json.dumps(dict(name="toy", domain=dict(type="toy"))))
    assert main(["corpus", str(recipe)]) == 2
    assert "needs a recipe of the domain 'text', got 'toy'" in capsys.readouterr().err


def test_ranks_of_layers_are_a_table_over_seeds(tmp_path, capsys):
    def rank(value):
        return dict(effective_rank=value, attainable=8, n=20)

    for seed in (0, 1):
        layers = {"qkv.q": dict(weight=rank(4.0 + seed), output=rank(2.0 + seed)), "plain": dict(weight=rank(1.0))}
        record = dict(name="a", overrides={}, seed=seed, rank=dict(representation=rank(3.0), layers=layers))
        with (tmp_path / "runs.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    assert main(["ranks", str(tmp_path)]) == 0
    table = (tmp_path / "layers.md").read_text()
    assert "mean ± standard deviation of 2 seeds; 20 un-augmented texts" in table
    assert "| qkv.q | 4.5 ± 0.7 / 8 | 2.5 ± 0.7 / 8 |" in table
    assert "| plain | 1.0 ± 0.0 / 8 | – |" in table
    assert "| representation | – | 3.0 ± 0.0 / 8 |" in table
