"""What a plug-in imports, it imports from ``sslcollapse``: the names stay, and cost nothing before they are used."""

import subprocess
import sys

import sslcollapse

FOR_PLUG_INS = """
Batch Branch Context LazyViews Neighbours ProbeSet Split
Domain SampleDomain Samples Objective WeightPenalty FeaturePenalty Constraint OptimizerSpec
SplitProbe Outcome ProbeResult SplitChoice
DataError LayerError MissingDataError NonFiniteLossError RecipeError RegistryError RunError SSLCollapseError
Above AtLeast AtMost Between Coefficient Component Distinct Momentum Named Probability Share Weight Width
COEFFICIENTS CONSTRAINTS DOMAINS ENCODERS GRAPH_DATASETS OBJECTIVES OPTIMIZERS PROBES REGISTRIES REGULARIZERS
VISION_DATASETS Registry Gather Head Layer derive_seed fraction_split generator layer_map stratified_split weights
extend load_recipe train
"""
"""A name that leaves this list breaks packages of others."""


def test_what_a_plug_in_needs_is_importable_from_the_package_itself():
    needed = set(FOR_PLUG_INS.split())
    assert needed <= set(sslcollapse.__all__) <= set(dir(sslcollapse))


def test_every_public_name_is_there_and_is_named_once():
    assert sorted(set(sslcollapse.__all__)) == sorted(sslcollapse.__all__)
    assert {name for name in sslcollapse._LAZY} | {"__version__"} == set(sslcollapse.__all__)
    for name in sslcollapse.__all__:
        assert getattr(sslcollapse, name) is not None


def test_importing_the_package_imports_none_of_its_rooms_and_no_library():
    code = (
        "import sys, sslcollapse; print([m for m in sys.modules if m.startswith(('torch', 'numpy', 'sslcollapse.'))])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_what_a_domain_derives_from_does_not_import_the_trainer_nor_accelerate():
    code = (
        "import sys; from sslcollapse import Batch, SampleDomain, Samples, Component, REGISTRIES, Objective\n"
        "print([m for m in sys.modules if m.startswith(('accelerate', 'matplotlib', 'sslcollapse.training'))])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
