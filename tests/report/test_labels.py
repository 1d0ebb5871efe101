import pytest

from sslcollapse.report.labels import compact, differing, several, without_beginning


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([256, 256, 256], "256×3"),
        ([64], "64"),
        ([512, 256], "[512, 256]"),
        ([], "none"),
        ({}, "none"),
        (None, "none"),
        (1e-05, "1e-05"),
        ({"type": "bgrl"}, "bgrl"),
        ({"type": "werank", "coefficient": 0.1}, "werank(coefficient=0.1)"),
        ([[1, 2], [1, 2]], "[[1, 2], [1, 2]]"),
    ],
)
def test_a_value_in_a_few_letters(value, text):
    assert compact(value) == text


def test_parts_with_a_type_each_are_named_by_it_alone_and_their_arguments_once():
    found = differing([{"type": "simclr", "projector": [64, 64], "temperature": 0.2}, {"type": "byol"}])
    assert found.texts == ["simclr", "byol"]
    assert found.shared == ["simclr has projector=64×2, temperature=0.2"]


def test_what_parts_of_all_types_share_is_said_once():
    found = differing([{"type": "simclr", "projector": [64, 64], "t": 0.2}, {"type": "vicreg", "projector": [64, 64]}])
    assert found.texts == ["simclr", "vicreg"]
    assert found.shared == ["all have projector=64×2", "simclr has t=0.2"]


def test_long_names_lose_the_words_that_all_begin_with():
    found = without_beginning(["a long description of runs, Cora", "a long description of runs, CiteSeer"])
    assert found.texts == ["Cora", "CiteSeer"]
    assert found.shared == ["all begin with 'a long description of runs,'"]
    for short in (["GRACE, Cora", "GRACE, CiteSeer"], ["alone but rather long, all in all"], ["x" * 30, "y" * 30]):
        assert without_beginning(short).texts == short
    assert without_beginning(["twice the very same long", "twice the very same long name"]).texts == [
        "long",
        "long name",
    ]


def test_arguments_are_named_where_the_type_does_not_tell_apart():
    found = differing([{"type": "simclr", "t": 0.1, "p": 2}, {"type": "simclr", "t": 0.2, "p": 2}, {"type": "byol"}])
    assert found.texts == ["simclr 0.1", "simclr 0.2", "byol"]
    assert found.shared == ["a bare value is t", "simclr has p=2"]
    two = differing([{"type": "s", "a": 1, "b": 1}, {"type": "s", "a": 2, "b": 2}])
    assert two.texts == ["a 1 b 1", "a 2 b 2"]


def test_numbers_and_parts_on_one_axis():
    band = {"type": "band", "value": 0.01}
    found = differing([0, {**band, "stop": 0}, {**band, "start": 1}, 0.01])
    assert found.texts == ["0", "band stop 0", "band start 1", "0.01"]
    assert found.shared == ["band has value=0.01"]


def test_a_mapping_of_parts_is_named_by_those_that_differ():
    parts = [{}, *({name: {"type": name, "coefficient": c}} for name in ("werank", "so") for c in (0.1, 0.2))]
    assert differing(parts).texts == ["none", "werank 0.1", "werank 0.2", "so 0.1", "so 0.2"]
    assert differing([{"a": {"x": 1}}, {"a": {"x": 1}, "b": 2}]).texts == ["default", "b 2"]


def test_what_is_the_same_at_every_level_is_dropped_and_said_once():
    found = several(["v.strength", "v.drop", "v.mask"], [(1, [0.2, 0.2], [0, 0]), (1, [0.2, 0.2], [0.4, 0.4])])
    assert found.texts == ["0×2", "0.4×2"]
    assert found.shared == ["all have strength=1, drop=0.2×2"]
    assert several(["steps", "decoupled"], [(50, True), (50, False)]).texts == ["decoupled True", "decoupled False"]


def test_encoders_are_named_by_their_number_of_layers():
    path = "encoder.hidden"
    found = several([path], [([256] * 2,), ([256] * 12,)])
    assert (found.texts, found.shared) == (["2 layers", "12 layers"], ["layers are 256 wide"])
    assert several([path], [([64],), ([256] * 2,)]).texts == ["1 layer of 64", "2 layers of 256"]
    assert several([path], [([64, 32],), ([64],)]).texts == ["[64, 32]", "64"]


@pytest.mark.parametrize(
    "values",
    [
        [{"type": "a", "x": []}, {"type": "a"}],
        [{"type": "a", "x": {"type": "b"}}, {"type": "a", "x": "b"}],
        ["none", None, {}],
        [True, "True", 1],
    ],
)
def test_labels_differ_wherever_their_values_do_in_writing(values):
    assert len(set(differing(values).texts)) == len({compact(value) for value in values})
