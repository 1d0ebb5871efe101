"""The command of the benchmarks, which are for people with a clone."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from sslcollapse.cli import run_command
from tools import bench


def test_a_benchmark_that_does_not_exist_lists_those_that_do(capsys):
    assert run_command(bench.parser(), ["graph-stp"]) == 2
    assert "unknown benchmark 'graph-stp'; did you mean 'graph-step'?" in capsys.readouterr().err


def test_the_record_of_a_benchmark_is_written_to_the_file_that_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(bench.importlib, "import_module", lambda name: SimpleNamespace(main=lambda: {"of": name}))
    assert run_command(bench.parser(), ["graph-step", "--json", str(tmp_path / "new" / "a.json")]) == 0
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"of": "tools.bench.graph_step"}


@pytest.mark.parametrize("name", sorted(bench.BENCHES))
def test_every_benchmark_that_is_named_is_there(name):
    assert callable(getattr(bench.importlib.import_module(bench.BENCHES[name]), "main", None))


def test_the_help_names_the_benchmarks(capsys):
    with pytest.raises(SystemExit):
        bench.parser().parse_args(["--help"])
    assert "which benchmark: ablate, graph-step, memory," in " ".join(capsys.readouterr().out.split())
