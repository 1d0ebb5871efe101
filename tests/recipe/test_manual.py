"""What ``list KIND NAME`` says of a component."""

import pytest

from sslcollapse import cli
from sslcollapse.core.registry import REGISTRIES, RegistryError
from sslcollapse.recipe.manual import listing


def test_the_arguments_of_a_component_have_type_range_default_and_meaning(capsys):
    assert cli.main(["list", "encoder", "gcn"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("encoder gcn: Graph convolutions, each followed by a normalisation and an activation")
    assert "Source: Thakoor et al., ICLR 2022." in shown
    assert "  hidden: a list of int >= 1; default [512, 256]\n      width of each layer;" in shown
    assert "  norm_momentum: a number in [0, 1]; default 0.99\n      BatchNorm's momentum" in shown
    assert "  initial_rank: an int >= 1 or None; default None\n" in shown
    assert "  norm: one of 'batch', 'layer', 'graph', 'none'; default 'batch'\n" in shown


def test_fields_of_a_dict_and_required_arguments_are_shown_too():
    shown = listing("domain", "graph")
    assert "  dataset: a dict with the 'type' and the arguments of the graph_dataset; required\n" in shown
    assert "  views.edge_drop: a list of numbers in [0, 1); default [0.5, 0.4]\n      probability that an edge" in shown


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, r in REGISTRIES.items() for name in r.names()])
def test_every_component_has_a_manual_that_explains_each_argument(kind, name):
    lines = listing(kind, name).splitlines()
    for argument in REGISTRIES[kind].parameters(name):
        (at,) = [number for number, line in enumerate(lines) if line.startswith(f"  {argument}: ")]
        assert lines[at + 1].startswith("      "), argument


def test_an_unknown_component_is_suggested():
    with pytest.raises(RegistryError, match=r"unknown encoder 'gnc'; did you mean 'gcn'\?"):
        listing("encoder", "gnc")
