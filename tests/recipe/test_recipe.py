import copy
import json
from pathlib import Path

import pytest

from sslcollapse.core.errors import RecipeError
from sslcollapse.recipe import (
    assign,
    difference,
    extend,
    from_json,
    load,
    override,
    recipe_hash,
    resolve,
    to_json,
)

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.py"))


@pytest.fixture
def plain() -> dict:
    return dict(
        name="toy",
        domain=dict(type="graph", dataset=dict(type="csbm")),
        encoder=dict(type="gcn", hidden=[8, 4]),
        objective=dict(type="bgrl"),
        optim=dict(type="adamw", lr=1e-3),
        train=dict(steps=5),
    )


@pytest.fixture
def ranked(plain) -> dict:
    return {**plain, "regularizers": {"werank": {"type": "werank", "coefficient": {"convs.*": 0.1}}}}


# load


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_file_knows_its_own_place_and_runs_once(tmp_path):
    path = write(
        tmp_path / "a.py",
        "from pathlib import Path\n"
        "log = Path(__file__).with_name('log')\n"
        "log.write_text(log.read_text() + 'x' if log.exists() else 'x')\n"
        "recipe = dict(name=Path(__file__).stem)\n",
    )
    assert load(path) == {"name": "a"}
    assert (tmp_path / "log").read_text() == "x"


def test_a_recipe_survives_the_round_trip_through_a_json_file(tmp_path, ranked):
    resolved = resolve(ranked)
    assert load(write(tmp_path / "recipe.json", to_json(resolved))) == resolved
    assert from_json(to_json(resolved)) == resolved


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.py",
            "recipes = dict()",
            r"a.py: defines no `recipe`; did you mean 'recipes'\? .*write `recipe = dict",
        ),
        ("a.py", "recipe = 3", r"a.py: `recipe` must be a dict, got 3"),
        ("a.py", "x = 1\nrecipe = dict(y=z)", r"a.py, line 2: NameError: name 'z' is not defined"),
        ("a.py", "x = 1\nrecipe = dict(", r"a.py, line 2: SyntaxError: "),
        ("a.json", '{"a": 1,\n b}', r"a.json, line 2: not valid JSON: "),
        ("a.json", "[]", r"a.json: `recipe` must be a dict, got \[\]"),
        (
            "a.py",
            "from sslcollapse.recipe import extend\nrecipe = extend(__file__, {})",
            r"a.py: extends itself, directly or through another recipe",
        ),
        (
            "a.py",
            "def f(): return f()\nrecipe = f()",
            r"a.py, line 1: something calls itself without end",
        ),
        ("a.py", "import sys\nsys.exit(0)", r"a.py, line 2: the file ends Python \(sys.exit\) while it is read"),
        ("a.py", "recipe = {}\nrecipe['a'] = recipe", r"a.py: a: nested more than 50 levels deep"),
        ("a.py", "recipe = 10 ** 5000", r"a.py: `recipe` must be a dict, got an int of about 5,000 digits"),
        (
            "a.py",
            "class A(dict):\n def items(self): 1 / 0\nrecipe = A()",
            r"a.py: `recipe` cannot be read as a dict: ",
        ),
        ("a.json", '{"a":' * 100_000, r"a.json: nested too deeply; a recipe has about six levels"),
        ("a.json", '{"a": ' + "9" * 5000 + "}", r"a.json: not valid JSON: Exceeds the limit"),
        ("a.json", '{"a": 1, "b": {"c": 1, "c": 2}}', r"a.json: not valid JSON: the key 'c' comes twice in one object"),
    ],
)
def test_a_bad_recipe_file_is_named_with_its_line(tmp_path, name, text, message):
    with pytest.raises(RecipeError, match=message):
        load(write(tmp_path / name, text))


def test_a_missing_file_suggests_its_neighbours(tmp_path):
    write(tmp_path / "bgrl_cora.py", "")
    with pytest.raises(RecipeError, match=r"bgrl_coar.py: no such file; did you mean 'bgrl_cora.py'\?"):
        load(tmp_path / "bgrl_coar.py")
    with pytest.raises(RecipeError, match=r"no such file \(recipes in .*: bgrl_cora.py\)"):
        load(tmp_path / "zzz")
    with pytest.raises(RecipeError, match=r"no such file; there is no folder"):
        load(tmp_path / "nowhere" / "a.py")
    with pytest.raises(RecipeError, match=r"this is a folder \(recipes in .*: bgrl_cora.py\)"):
        load(tmp_path)


def test_an_error_in_a_base_is_reported_for_the_base(tmp_path):
    write(tmp_path / "base.py", "\n\nrecipe = 1 / 0")
    child = write(
        tmp_path / "child.py",
        "from pathlib import Path\nfrom sslcollapse.recipe import extend\n"
        "recipe = extend(Path(__file__).with_name('base.py'), {})",
    )
    with pytest.raises(RecipeError, match=r"base.py, line 3: ZeroDivisionError"):
        load(child)


# extend


def test_extend_merges_dicts_deeply_and_leaves_the_base_alone(plain):
    before = copy.deepcopy(plain)
    child = extend(plain, dict(name="child", encoder=dict(norm="none"), monitor=dict(every=7)))
    assert child["encoder"] == dict(type="gcn", hidden=[8, 4], norm="none")
    assert child["monitor"] == dict(every=7)
    assert (child["name"], child["train"]) == ("child", dict(steps=5))
    child["train"]["steps"] = 9
    assert plain == before


def test_extend_with_another_type_keeps_no_argument_of_the_former(plain):
    plain["encoder"]["weight_standardization"] = True
    child = extend(plain, dict(encoder=dict(type="sage")))
    assert child["encoder"] == dict(type="sage")
    assert "weight_standardization" not in resolve(child)["encoder"]


def test_extend_with_the_same_type_merges(plain):
    assert extend(plain, dict(encoder=dict(type="gcn", norm="none")))["encoder"]["hidden"] == [8, 4]


def test_extend_replaces_lists_and_coefficients(ranked):
    child = extend(ranked, dict(encoder=dict(hidden=[3]), regularizers=dict(werank=dict(coefficient={"convs.0": 1.0}))))
    assert child["encoder"]["hidden"] == [3]
    assert child["regularizers"]["werank"] == dict(type="werank", coefficient={"convs.0": 1.0})


def test_extend_deletes_with_none(ranked):
    assert extend(ranked, dict(regularizers=dict(werank=None)))["regularizers"] == {}
    assert "regularizers" not in extend(ranked, dict(regularizers=None))


def test_deleting_what_is_not_there_does_nothing(plain, ranked):
    assert extend(plain, dict(x=None, monitor=None)) == plain
    assert resolve(extend(plain, dict(encoder=dict(initial_rank=None)))) == resolve(plain)
    for recipe, path in ((plain, "regularizers.werank"), (plain, "evaluate.x"), (ranked, "regularizers.so")):
        assert resolve(override(recipe, [f"{path}=None"])) == resolve(recipe)
        assert resolve(assign(recipe, {path: None})) == resolve(recipe)


def test_deleting_a_misspelt_name_is_refused(ranked):
    with pytest.raises(RecipeError, match=r"regularizers.wrank: None deletes, but the base has no 'wrank'; did you"):
        extend(ranked, dict(regularizers=dict(wrank=None)))


# override


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("domain.dataset.type=digits", ("domain", "dataset", "type"), "digits"),
        ("encoder.hidden=[64, 32]", ("encoder", "hidden"), [64, 32]),
        ("encoder.hidden=(6,)", ("encoder", "hidden"), [6]),
        ("encoder.norm=none", ("encoder", "norm"), "none"),
        ("encoder.norm='none'", ("encoder", "norm"), "none"),
        ("encoder.weight_standardization=True", ("encoder", "weight_standardization"), True),
        ("train.steps=50", ("train", "steps"), 50),
        ("optim.lr=1", ("optim", "lr"), 1.0),
        ("monitor.every=3", ("monitor", "every"), 3),
        ("data_root=/a=b", ("data_root",), "/a=b"),
        ("data_root=None", ("data_root",), None),
        ("domain.batch_size=None", ("domain", "batch_size"), None),
        ("domain.views.strength=0.5", ("domain", "views", "strength"), 0.5),
        (
            'regularizers.werank.coefficient={"convs.0": 0, "convs.1": 0.03}',
            ("regularizers", "werank", "coefficient"),
            {"convs.0": 0.0, "convs.1": 0.03},
        ),
        ("regularizers.werank.coefficient=0.5", ("regularizers", "werank", "coefficient"), 0.5),
        ("regularizers.werank.squared=True", ("regularizers", "werank", "squared"), True),
        ("regularizers.werank=None", ("regularizers",), {}),
        ("regularizers=None", ("regularizers",), {}),
        ("regularizers={}", ("regularizers",), {}),
    ],
)
def test_an_override_sets_exactly_its_place(ranked, assignment, path, value):
    before = copy.deepcopy(ranked)
    resolved = resolve(override(ranked, [assignment]))
    assert ranked == before
    expected = resolve(ranked)
    node = expected
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    if assignment.startswith("domain.dataset.type"):
        expected["domain"]["dataset"] = resolved["domain"]["dataset"]
        assert resolved["domain"]["dataset"]["type"] == "digits"
    assert resolved == expected


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("encoder.hiden=[3]", r"encoder.hiden: unknown argument of 'gcn'; did you mean 'hidden'\?"),
        ("trian.steps=3", r"trian: a recipe has no 'trian'; did you mean 'train'\?"),
        ("sede=3", r"sede: unknown field of a recipe; did you mean 'seed'\?"),
        ("domain.datset.name=Cora", r"domain.datset: domain has no 'datset'; did you mean 'dataset'\?"),
        ("regularizers.wernak.coefficient=1", r"regularizers has no 'wernak'; did you mean 'werank'\?"),
        (
            "regularizers.zzz.coefficient=1",
            r"a new one is set as a whole: regularizers.zzz='\{\"type\": ...\}'",
        ),
        ("regularizers.wernak=None", r"regularizers has no 'wernak'; did you mean 'werank'\?"),
        (
            "regularizers.werank.coeficient=1",
            r"regularizers.werank.coeficient: unknown argument of 'werank'; did you mean 'coefficient'\?",
        ),
        (
            "regularizers.werank.coefficient.convs.0=1",
            r"names with dots go in a literal: regularizers.werank.coefficient='\{\"name\": value\}'",
        ),
        ("encoder.hidden=abc", r"encoder.hidden: expected a list of int >= 1, got 'abc'"),
        ("encoder.hidden.0=3", r"encoder.hidden.0: encoder.hidden is \[8, 4\], so nothing in it can be set"),
        ("train.steps=1.5", r"train.steps: expected an int, got 1.5"),
        ("train.steps=many", r"train.steps: expected an int, got 'many'"),
        ("train.steps=0", r"train.steps: must be >= 1, got 0"),
        (
            "train.precision=bf61",
            r"train.precision: expected one of 'no', .* got 'bf61'; did you mean 'bf16'\?",
        ),
        ("optim.lr=-1", r"optim.lr: must be >= 0, got -1"),
        ("objective.momentum=2", r"objective.momentum: must be in \[0, 1\], got 2"),
        (
            "encoder=None",
            r"encoder: expected a dict with the 'type' and the arguments of the encoder, got None",
        ),
        ("encoder.type=sagee", r"encoder.type: unknown encoder 'sagee'; did you mean 'sage'\?"),
        ("name=a/b", r"name: must be made of letters"),
        ("seed", r"override 'seed': expected path=value"),
        ("a..b=3", r"override 'a..b=3': expected path=value"),
        ("=3", r"override '=3': expected path=value"),
    ],
)
def test_a_bad_override_is_refused(ranked, assignment, message):
    with pytest.raises(RecipeError, match=message):
        override(ranked, [assignment])


def deep(levels: int) -> dict:
    value: dict = {}
    for _ in range(levels):
        value = {"a": value}
    return value


ITSELF: list = []
ITSELF.append(ITSELF)
MANY: list = [0]
for _ in range(60):
    MANY = [MANY, MANY]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder.hidden": [8, 10**400]}, r"encoder.hidden\[1\]: must be <= 9223372036854775807, got 10000"),
        ({"encoder.hidden": [10**5000]}, r"encoder.hidden\[0\]: must be <= 92.*, got an int of about 5,000 digits"),
        ({"optim.lr": 10**400}, "optim.lr: must be finite, got 1000"),
        ({"optim.lr": float("inf")}, "optim.lr: must be finite, got inf"),
        (
            {"regularizers": {"w": {"type": "werank", "coefficient": 10**400}}},
            "regularizers.w.coefficient: a coefficient must be a finite number >= 0, got 1000",
        ),
        ({"encoder": deep(3000)}, "encoder: nested more than 50 levels deep, or a dict or list that contains itself"),
        ({"encoder.hidden": ITSELF}, "encoder.hidden: nested more than 50 levels deep"),
        ({"encoder.hidden": MANY}, "encoder.hidden: more than 2,000,000 values"),
        ({"name": "a" * 256}, "name: has 256 letters, at most 200 make a folder: 'aaa"),
        ({"regularizers": {"w" * 300: {"type": "werank"}}}, "regularizers: a name has at most 200 letters, got 300"),
        ({"data_root": "a\0b"}, "data_root: must be text without NUL characters"),
        ({"data_root": "\ud800"}, "data_root: must be text that UTF-8 can write"),
        ({"encoder": {1: 2, "type": "gcn"}}, "encoder: keys must be strings, got 1"),
        ({"regularizers": {"w": {"type": "werank", "coefficient": {}}}}, r"w.coefficient: \{\} gives no layer a coeff"),
    ],
)
def test_a_value_that_no_function_could_follow_is_refused_with_its_place(plain, changes, message):
    with pytest.raises(RecipeError, match=message):
        assign(plain, changes)


@pytest.mark.parametrize("text", ["{[]}", "{1:[],[]:1}", "{{}}", "[" * 150, "-" * 5000 + "1", "9" * 5000, "\x00"])
def test_what_is_no_literal_is_a_string_that_its_field_refuses(plain, text):
    with pytest.raises(RecipeError, match="encoder: expected a dict with the 'type'"):
        override(plain, [f"encoder={text}"])


@pytest.mark.parametrize("order", [1, -1])
def test_an_override_of_type_replaces_the_dict_whatever_the_order(plain, order):
    plain["encoder"]["weight_standardization"] = True
    changed = override(plain, ["encoder.type=sage", "encoder.hidden=[5]"][::order])
    assert changed["encoder"] == dict(type="sage", hidden=[5])


def test_an_override_of_type_to_the_same_type_changes_nothing(plain):
    assert override(plain, ["encoder.type=gcn"]) == plain


def test_a_regularizer_can_be_added_by_overrides(plain):
    by_parts = override(plain, ["regularizers.werank.coefficient=0.2", "regularizers.werank.type=werank"])
    whole = override(plain, ['regularizers.werank={"type": "werank", "coefficient": 0.2}'])
    assert by_parts == whole


def test_an_override_can_complete_a_recipe(plain):
    del plain["train"]
    assert override(plain, ["train.steps=3", "monitor.every=1"])["train"] == dict(steps=3)


def test_assign_takes_values_instead_of_text(plain):
    assert assign(plain, {"encoder.norm": "none", "encoder.hidden": (3,)})["encoder"]["hidden"] == (3,)


# resolve


def test_resolving_spells_defaults_out_as_json_and_again_changes_nothing(ranked):
    resolved = resolve(ranked)
    assert resolved["seed"] == 0
    assert resolved["data_root"] is None
    assert resolved["monitor"] == dict(
        every=100,
        rank_warning=0.1,
        on_collapse=None,
        below=0.1,
        patience=3,
        gradients=True,
        samples=None,
        probe=None,
        baselines=True,
        timed=[],
        timed_every=1000,
        smoothness=False,
        overlap=0,
    )
    assert resolved["train"]["precision"] == "no"
    assert resolved["encoder"]["norm_momentum"] == 0.99
    assert json.loads(json.dumps(resolved)) == resolved
    assert resolve(resolved) == resolved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(regularizer={}), r"regularizer: unknown field of a recipe; did you mean 'regularizers'\?"),
        (dict(encoder=dict(type="gcn", hidden="abc")), r"encoder.hidden: expected a list of int >= 1, got 'abc'"),
        (dict(optim=dict(type="adamw")), r"optim.lr: missing argument of 'adamw'; give it a number"),
        (dict(domain=dict(type="graph")), r"domain.dataset: missing argument of 'graph'"),
        (
            dict(domain=dict(type="graph", dataset=dict(type="planetiod"))),
            r"domain.dataset.type: unknown graph_dataset 'planetiod'; did you mean 'planetoid'\?",
        ),
        (
            dict(regularizers=dict(werank=dict(type="werank", coefficient=-1))),
            r"regularizers.werank.coefficient: a coefficient must be a finite number >= 0, got -1",
        ),
        (
            dict(evaluate=dict(public=dict(type="logistic", fractions=[0.1, "a"]))),
            r"evaluate.public.fractions\[1\]: expected a number, got 'a'",
        ),
        (dict(train=dict(steps=float("nan"))), r"train.steps: expected an int, got nan"),
        (dict(optim=dict(type="adamw", lr=float("inf"))), r"optim.lr: must be finite, got inf"),
        (dict(data_root=Path("a")), r"data_root: expected a string or None, got .*Path\('a'\)"),
    ],
)
def test_a_mistake_is_found_before_data_is_read(plain, change, message):
    with pytest.raises(RecipeError, match=message):
        resolve({**plain, **change})


def test_a_recipe_without_an_encoder_says_so(plain):
    del plain["encoder"]
    with pytest.raises(RecipeError, match=r"encoder: missing field of a recipe; give it a dict with the 'type'"):
        resolve(plain)


def test_a_recipe_must_be_a_dict():
    with pytest.raises(RecipeError, match=r"a recipe: expected a dict, got \[\]"):
        resolve([])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_resolves_under_its_own_name(path):
    assert resolve(load(path))["name"] == path.stem


# hash


def hash_of(recipe: dict) -> str:
    return recipe_hash(resolve(recipe))


def test_the_hash_is_eight_hex_digits(plain):
    assert len(hash_of(plain)) == 8
    assert int(hash_of(plain), 16) >= 0


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"seed": 5},
        {"data_root": "/data"},
        {"monitor.every": 3},
        {"monitor.gradients": False},
        {"train.checkpoint_every": 3},
        {"train.keep_checkpoints": 3},
        {"train.timeout_minutes": 3.0},
        {"train.log_every": 3},
        {"train.trackers": ["tensorboard"]},
        {"encoder.norm": "batch"},
        {"encoder.norm_momentum": 0.99},
        {"optim.weight_decay": 1e-5},
        {"regularizers.werank.coefficient": {"convs.*": 0.10}},
    ],
    ids=str,
)
def test_what_changes_nothing_learnt_keeps_the_hash(ranked, changes):
    assert hash_of(assign(ranked, changes)) == hash_of(ranked)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder.hidden": [8, 5]},
        {"encoder.hidden": [4, 8]},
        {"encoder.norm": "none"},
        {"train.steps": 6},
        {"train.precision": "bf16"},
        {"optim.lr": 2e-3},
        {"objective.momentum": 0.98},
        {"domain.dataset.type": "digits"},
        {"regularizers": {}},
        {"regularizers.werank.coefficient": 0.1},
        {"evaluate.random": {"type": "logistic", "split": "random"}},
    ],
    ids=str,
)
def test_what_changes_a_result_changes_the_hash(ranked, changes):
    assert hash_of(assign(ranked, changes)) != hash_of(ranked)


def test_neither_key_order_nor_one_for_one_point_zero_changes_the_hash(ranked):
    shuffled = dict(reversed(list(ranked.items())))
    assert hash_of(shuffled) == hash_of(ranked)
    assert hash_of(assign(ranked, {"optim.lr": 1})) == hash_of(assign(ranked, {"optim.lr": 1.0}))
    one, other = ({"regularizers.werank.coefficient": value} for value in (2, 2.0))
    assert hash_of(assign(ranked, one)) == hash_of(assign(ranked, other))


def test_the_hash_survives_the_json_round_trip(ranked):
    resolved = resolve(ranked)
    assert recipe_hash(from_json(to_json(resolved))) == recipe_hash(resolved)


# difference


def test_difference_names_paths_with_both_values(ranked):
    other = assign(ranked, {"train.steps": 7, "seed": 2, "regularizers.werank": None})
    lines = difference(resolve(ranked), resolve(other))
    assert lines[:1] == ["seed: 0 here, 2 there"]
    assert "train.steps: 5 here, 7 there" in lines
    assert any(line.startswith("regularizers.werank: {'type': 'werank'") for line in lines)
    assert len(lines) == 3


def test_difference_of_two_types_names_only_the_types(plain):
    other = assign(plain, {"encoder.type": "sage"})
    assert difference(resolve(plain), resolve(other)) == ["encoder.type: 'gcn' here, 'sage' there"]


def test_recipes_that_are_the_same_run_do_not_differ(plain):
    other = assign(plain, {"monitor.every": 7, "data_root": "x", "train.log_every": 1})
    assert difference(resolve(plain), resolve(other)) == []


def test_an_option_that_an_older_run_did_not_know_is_no_difference_where_it_has_its_default(ranked):
    asked = resolve(ranked)
    older = json.loads(json.dumps(asked))
    del older["constraints"], older["initialization"], older["train"]["compile"]
    older["train"]["steps"] += 1
    steps = asked["train"]["steps"]
    assert difference(asked, older) == [f"train.steps: {steps} here, {steps + 1} there"]
    stated = resolve({**ranked, "initialization": "orthogonal"})
    assert "initialization: 'orthogonal' here, absent there" in difference(stated, older)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"monitor.timed": ["kn"]}, "'kn' is no probe of evaluate; did you mean 'knn'\\? \\(known: knn, public\\)"),
        ({"monitor.timed": ["knn"], "evaluate": {}}, "'knn' is no probe of evaluate, which has none"),
    ],
)
def test_a_probe_during_training_that_the_recipe_does_not_have_is_refused_before_data_are_read(changes, message, plain):
    probes = dict(knn=dict(type="knn"), public=dict(type="logistic", split="public"))
    with pytest.raises(RecipeError, match=f"monitor.timed: {message}"):
        assign({**plain, "evaluate": probes}, changes)
