import pytest

from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.values import parse_grid
from sslcollapse.core.errors import RecipeError
from sslcollapse.recipe import load, resolve

GRID = ["encoder.hidden=[4],[8]"]


def test_grid_values_are_split_at_top_level_commas_only():
    assert parse_grid("encoder.hidden=[64],[128, 32]") == ("encoder.hidden", [[64], [128, 32]])
    assert parse_grid("a.b=1e-3,None,'x,y',batch,{'k': (1, 2)}")[1] == [
        1e-3,
        None,
        "x,y",
        "batch",
        {"k": (1, 2)},
    ]


@pytest.mark.parametrize("argument", ["encoder.hidden", "a=", "a=1,,2", "a=[1,2"])
def test_a_malformed_grid_is_quoted(argument):
    with pytest.raises(RecipeError, match="--grid"):
        parse_grid(argument)


def test_cells_are_the_product_of_axes_with_overrides_in_all(workspace):
    ablation = plan(workspace.recipe, [*GRID, "optim.lr=0.1,0.2"], 3, ["train.steps=7"])
    assert [tuple(cell.values.values()) for cell in ablation.cells] == [
        ([4], 0.1),
        ([4], 0.2),
        ([8], 0.1),
        ([8], 0.2),
    ]
    assert all(cell.recipe["train"]["steps"] == 7 for cell in ablation.cells)
    assert ablation.cells[2].recipe["encoder"]["hidden"] == [8]
    assert ablation.name == "tiny"


def test_paths_of_a_tuple_move_together(workspace):
    target = workspace.ablation(
        'name="pairs", base="tiny.py", seeds=2,axes={("encoder.hidden", "optim.lr"): [([4], 0.1), ([8], 0.2)]}'
    )
    ablation = plan(target, [], None, [])
    assert [cell.recipe["optim"]["lr"] for cell in ablation.cells] == [0.1, 0.2]
    assert ablation.seeds == 2
    assert plan(target, [], 5, []).seeds == 5


def test_each_cell_is_compared_with_the_baseline_on_its_own_other_axes(workspace):
    target = workspace.ablation(
        'name="a", base="tiny.py", baseline={"encoder.hidden": [4]},'
        'axes={"encoder.hidden": [[4], [8]], "optim.lr": [0.1, 0.2]}'
    )
    ablation = plan(target, [], None, [])
    first, second, third, fourth = (cell.hash for cell in ablation.cells)
    assert ablation.baselines == {third: first, fourth: second}


def test_one_base_recipe_can_be_the_baseline_of_the_others(workspace):
    (workspace.folder / "wide.py").write_text(workspace.recipe.read_text().replace("hidden=[4]", "hidden=[8]"))
    target = workspace.ablation('name="a", base={"narrow": "tiny.py", "wide": "wide.py"}, baseline={"base": "narrow"}')
    ablation = plan(target, [], None, [])
    narrow, wide = (cell.hash for cell in ablation.cells)
    assert ablation.baselines == {wide: narrow}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name="a", base="tiny.py", axis={}', "ablation.axis: unknown field; did you mean 'axes'"),
        ('base="tiny.py"', "ablation.name is missing"),
        ('name="a", base="none.py"', "none.py: no such file"),
        ('name="a", base="tiny.py", seeds=0', "seeds must be a number from 1 to 10000, got 0"),
        (
            'name="a", base="tiny.py", axes={"encoder.hidden": [[4], "x"]}',
            "cell tiny encoder.hidden=x: .*hidden",
        ),
        ('name="a", base="tiny.py", axes={"encoder.hiden": [[4]]}', "cell tiny encoder.hiden=.4.: .*hiden"),
        ('name="a", base="tiny.py", axes={"optim.lr": []}', "axis optim.lr: give a list"),
        (
            'name="a", base="tiny.py", axes={("optim.lr", "train.steps"): [1]}',
            "needs 2 values, one a path, got 1",
        ),
        ('name="a", base="tiny.py", axes={"optim.lr": [0.1, 0.1]}', "are the same recipe"),
        ('name="a", base="tiny.py", axes={"seed": [1, 2]}', "how many with --seeds"),
        ('name="a", base={"a": 1}', r"ablation.base: expected label → path of a recipe, got {'a': 1}"),
        ('name="a", base="tiny.py", axes={3: [1]}', "axes: 3 must be a recipe path or a tuple of paths"),
        ('name="a", base="tiny.py", seeds=10**400', "seeds must be a number from 1 to 10000, got 1000"),
        (
            'name="a", base="tiny.py", axes={"optim.lr": [10**5000]}',
            "optim.lr=an int of about 5,000 digits: op",
        ),
        (
            'name="a", base="tiny.py", axes={"optim.lr": list(range(200)), "train.steps": list(range(200))}',
            "axes: they make 40,000 cells, and 10,000 are the most",
        ),
        (
            'name="a", base="tiny.py", claim=dict(number=0, statement="s", checks=[dict(kind=[])])',
            r"kind: \[\] is none",
        ),
        (
            'name="a", base="tiny.py", claim=dict(number=0, statement="s", checks=[dict(kind="trend", name="n", '
            'metric="rank.representation.effective_rank", expect="positive", along={})])',
            "along: {} is none of base",
        ),
        (
            'name="a", base="tiny.py", axes={"optim.lr": [1.0]}, baseline={"optim.lr": 2.0}',
            "baseline: no cell with",
        ),
        ('name="a", base="tiny.py", axes={"optim.lr": [1.0]}, baseline={"lr": 1}', "'lr' is no axis"),
        ('name="a", base="tiny.py", metrics=["accuracy"]', "'accuracy' is no path into a record"),
        (
            'name="a", base="tiny.py", metrics=["evaluation.random.test_accuracy"]',
            "none of the recipe's probes",
        ),
    ],
)
def test_a_bad_ablation_file_is_refused_with_the_place(workspace, text, message):
    with pytest.raises(RecipeError, match=message):
        plan(workspace.ablation(text), [], None, [])


def test_the_command_line_can_say_what_a_file_says(workspace):
    (workspace.folder / "wide.py").write_text(workspace.recipe.read_text().replace("hidden=[4]", "hidden=[8]"))
    target = workspace.ablation(
        'name="both", base={"tiny": "tiny.py", "wide": "wide.py"}, seeds=2, baseline={"base": "tiny", "optim.lr": 0.1},'
        'axes={("optim.lr", "train.steps"): [(0.1, 5), (0.2, 6)]}'
    )
    line = plan(
        workspace.recipe,
        ["optim.lr,train.steps=(0.1, 5),(0.2, 6)"],
        2,
        [],
        baseline=["base=tiny", "optim.lr=0.1"],
        others=[workspace.folder / "wide.py"],
        name="both",
    )
    file = plan(target, [], None, [])
    assert [cell.hash for cell in line.cells] == [cell.hash for cell in file.cells]
    assert len(line.cells) == 4
    for field in ("name", "axes", "seeds", "baselines"):
        assert getattr(line, field) == getattr(file, field), field


def test_two_recipes_need_no_grid(workspace):
    (workspace.folder / "wide.py").write_text(workspace.recipe.read_text().replace("hidden=[4]", "hidden=[8]"))
    ablation = plan(workspace.recipe, [], 1, [], others=[workspace.folder / "wide.py"])
    assert [cell.base for cell in ablation.cells] == ["tiny", "wide"]
    assert ablation.name == "tiny"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(baseline=["encoder.hidden"]), "--baseline 'encoder.hidden': write it as path=value"),
        (dict(baseline=["encoder.hidden=[4],[8]"]), "--baseline .*: write it as path=value, once for each path"),
        (dict(baseline=["encoder.hiden=[4]"]), "baseline: 'encoder.hiden' is no axis; did you mean 'encoder.hidden'"),
        (dict(baseline=["encoder.hidden=[5]"]), "baseline: no cell with"),
        (dict(others=["tiny.py"]), "two recipes of one name"),
        (dict(others=["tny.py"]), "tny.py: no such file"),
        (dict(name="a/b"), "--name: must be made of letters.*got 'a/b'"),
        (dict(more=["train.steps,optim.lr=1,2"]), "each entry needs 2 values, one a path, got 1"),
        (dict(more=["encoder.hidden,optim.lr=([4],1)"]), "--grid encoder.hidden,optim.lr: given twice"),
    ],
)
def test_mistakes_on_the_command_line_are_quoted(workspace, options, message):
    grid = [*GRID, *options.pop("more", [])]
    with pytest.raises(RecipeError, match=message):
        plan(workspace.recipe, grid, 1, [], **options)


OUTSIDE = ("..", ".", "../../x", "/tmp/x", ".hidden", "a/../../x", "a\\x", "", " ", "x\n", "x" * 201)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leaves_the_results_folder_or_hides_in_it_is_refused_wherever_it_is_given(workspace, name):
    message = "at most 200 make a folder" if len(name) > 200 else "must be made of letters"
    with pytest.raises(RecipeError, match=f"--name.*{message}"):
        plan(workspace.recipe, GRID, 1, [], name=name)
    target = workspace.ablation(f'name={name!r}, base="tiny.py", axes={{"optim.lr": [0.1]}}')
    with pytest.raises(RecipeError, match=rf"ablation.py: ablation.name.*{message if name else 'is missing'}"):
        plan(target, [], None, [])
    with pytest.raises(RecipeError, match=f"name: .*{message}"):
        resolve({**load(workspace.recipe), "name": name})


def test_what_a_file_says_is_not_said_again(workspace):
    target = workspace.ablation('name="a", base="tiny.py", axes={"optim.lr": [0.1]}')
    for options in (dict(baseline=["optim.lr=0.1"]), dict(name="b"), dict(others=[workspace.recipe])):
        with pytest.raises(RecipeError, match=r"ablation.py is an ablation file, which says this itself"):
            plan(target, [], None, [], **options)


def test_a_recipe_needs_a_grid_and_seeds(workspace):
    with pytest.raises(RecipeError, match="at least one --grid"):
        plan(workspace.recipe, [], 1, [])
    with pytest.raises(RecipeError, match="--seeds N"):
        plan(workspace.recipe, GRID, None, [])
    with pytest.raises(RecipeError, match="given twice"):
        plan(workspace.recipe, GRID * 2, 1, [])
    with pytest.raises(RecipeError, match="axis of the ablation and cannot be overridden"):
        plan(workspace.recipe, GRID, 1, ["encoder.hidden=[2]"])
    werank = ["regularizers.werank=dict(type='werank'),None"]
    with pytest.raises(RecipeError, match=r"werank.coefficient: regularizers.werank is an axis of the ablation"):
        plan(workspace.recipe, werank, 1, ["regularizers.werank.coefficient=5.0"])
    assert plan(workspace.recipe, GRID, 1, ["encoder={'type': 'gcn', 'hidden': [3]}"]).cells


def test_a_grid_may_remove_what_only_some_bases_have(workspace):
    other = workspace.folder / "ranked.py"
    text = workspace.recipe.read_text().replace("evaluate=", 'regularizers=dict(werank=dict(type="werank")), evaluate=')
    other.write_text(text.replace('"tiny"', '"ranked"').replace("hidden=[4]", "hidden=[5]"))
    grid = ['regularizers.werank=None,dict(type="werank", coefficient=0.5)']
    found = plan(workspace.recipe, grid, 1, [], others=[other])
    assert [sorted(cell.recipe["regularizers"]) for cell in found.cells] == [[], ["werank"], [], ["werank"]]


@pytest.mark.parametrize("value", ["[" * 150, "-" * 5000 + "1", "{[]}", "{1:[],[]:1}", "9" * 5000])
def test_a_value_of_a_grid_that_is_no_literal_is_refused(workspace, value):
    with pytest.raises(RecipeError, match=r"is no Python literal|optim.lr: expected a number"):
        plan(workspace.recipe, [f"optim.lr={value}"], 1, [])


def test_a_misspelt_path_of_an_ablation_file_is_said_to_be_no_file_not_to_be_a_recipe(tmp_path):
    (tmp_path / "depth.py").write_text("ablation = dict()")
    with pytest.raises(RecipeError, match=r"dept\.py: no such file; did you mean 'depth\.py'"):
        plan(tmp_path / "dept.py", [], None, [])
