import json
from pathlib import Path

import pytest

from sslcollapse.ablation.files import NAME, command_line, read_plan, write_plan
from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.tables.page import page, table_csv
from sslcollapse.core.errors import RunError

COMMAND = "sslcollapse ablate ablation.py train.steps=3"


@pytest.fixture
def planned(workspace):
    (workspace.folder / "other.py").write_text(workspace.recipe.read_text().replace("hidden=4", "hidden=5"))
    check = (
        'dict(name="x", expect="positive", metric="evaluation.public.test_accuracy", select="validation", '
        'where={"optim.lr": [0.1]})'
    )
    text = (
        'name="a_b", base={"one": "tiny.py", "two": "other.py"}, seeds=3, baseline={"regularizers.w": None}, '
        'metrics=["rank.representation.effective_rank"], axes={"regularizers.w": [None, dict(type="werank")], '
        '("optim.lr", "train.steps"): [(0.1, 3), (0.2, 4)], '
        '"encoder": [dict(type="gcn", hidden=(4,)), dict(type="mlp")]}, '
        f'claim=dict(number=3, statement="It helps", checks=[{check}])'
    )
    recipe = workspace.recipe.read_text()
    workspace.recipe.write_text(recipe.replace("optim=", 'regularizers=dict(w=dict(type="so")), optim=', 1))
    (workspace.folder / "other.py").write_text(
        workspace.recipe.read_text().replace("predictor_hidden=4", "predictor_hidden=5")
    )
    return plan(workspace.ablation(text), [], None, ["monitor.every=0"])


def test_a_plan_that_is_read_back_is_the_same_plan(planned, workspace):
    folder = workspace.results / "a_b"
    write_plan(folder, planned, COMMAND)
    workspace.recipe.unlink()
    again, command = read_plan(folder)
    assert command == COMMAND
    assert [(c.base, c.hash, c.recipe) for c in again.cells] == [(c.base, c.hash, c.recipe) for c in planned.cells]
    for name in ("name", "axes", "seeds", "planned_seeds", "baselines", "metrics", "settings"):
        assert getattr(again, name) == getattr(planned, name)
    assert [(test.group, test.compared) for test in again.tests] == [
        (test.group, test.compared) for test in planned.tests
    ]
    records = Records(folder / "runs.jsonl")
    assert page(again, records, {}, "") == page(planned, records, {}, "")
    assert table_csv(again, records).count("\n") == len(planned.cells) + 1


def test_a_plan_has_no_path_of_the_machine_and_the_same_bytes_again(planned, workspace):
    for name in ("a", "b"):
        write_plan(workspace.results / name, planned, COMMAND)
    first, second = ((workspace.results / name / NAME).read_text() for name in ("a", "b"))
    assert first == second
    assert str(workspace.folder) not in first


def test_a_folder_without_a_plan_has_none(tmp_path):
    assert read_plan(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda made: [],
        lambda made: {},
        lambda made: {**made, "format": 2},
        lambda made: {**made, "seeds": "3"},
        lambda made: {**made, "seeds": 10**9},
        lambda made: {**made, "cells": []},
        lambda made: {**made, "cells": made["cells"] * 2},
        lambda made: {**made, "cells": [{**made["cells"][0], "base": "three"}]},
        lambda made: {**made, "cells": [{**made["cells"][0], "values": {}}]},
        lambda made: {**made, "cells": [{**made["cells"][0], "changes": [[["encoder", "x", "y"], 1]]}]},
        lambda made: {**made, "baselines": {"unknown": made["cells"][0]["hash"]}},
        lambda made: {**made, "metrics": ["nothing"]},
        lambda made: {**made, "claim": {"number": "one"}},
        lambda made: {**made, "bases": 3},
        lambda made: {**made, "name": "../elsewhere"},
        lambda made: {**made, "cells": [{**made["cells"][0], "hash": "../../elsewhere"}], "baselines": {}},
    ],
)
def test_a_damaged_plan_is_named_with_what_to_do(planned, workspace, damage):
    write_plan(workspace.results, planned, COMMAND)
    path = workspace.results / NAME
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(RunError, match=r"plan.json: not the plan of an ablation .*'sslcollapse ablate FILE --tables'"):
        read_plan(workspace.results)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_no_plan(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(RunError, match="not the plan of an ablation"):
        read_plan(tmp_path)


def test_the_command_of_a_page_names_the_results_folder_unless_it_is_the_usual_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [Path("tiny.py")], ["optim.lr=1,2"], 2, [], None, ["train.steps=3"]
    usual = "sslcollapse ablate tiny.py --grid optim.lr=1,2 --seeds 2 train.steps=3"
    assert command_line(*given) == usual
    assert command_line(*given, Path.cwd() / "docs" / "results") == usual
    assert command_line(*given, Path("mine")) == usual.replace("train.steps", "--results mine train.steps")
