"""What docs/diagnose.md says is run."""

import json
import re
import shlex
from pathlib import Path

import pytest

from sslcollapse.cli import main
from sslcollapse.rank.diagnose import verdicts as diagnosis
from sslcollapse.rank.diagnose.state_dict import WRAPPERS
from tools.evidence import calibration

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/diagnose.md").read_text()
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (sslcollapse .*)$", TEXT, re.M)]


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[1].startswith("timm:")], ids=" ".join)
def test_a_command_on_a_timm_model_finds_a_random_network_healthy(words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(ROOT / word) if word.startswith("recipes/") else word for word in words]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"(\d+) layers: \1 healthy, 0 degrading, 0 collapsed", shown)


def block(first_line: str) -> str:
    """A block of Python of the page, by its first line."""
    return next(found for found in re.findall(r"```python\n(.*?)```", TEXT, re.S) if found.startswith(first_line))


def test_the_collapsed_network_is_made_and_answered_as_shown(monkeypatch, tmp_path, capsys):
    (command,) = [words for words in COMMANDS if words[1] == "collapsed.pt"]
    monkeypatch.chdir(tmp_path)
    exec(block("# collapsed.py"), {})
    assert main(command) == 1
    shown = capsys.readouterr().out.splitlines()
    promised = TEXT[TEXT.index("The end of the table reads") :].split("\n\n")[1].splitlines()
    assert len(promised) == 8
    assert shown[-8:] == [line.strip() for line in promised]
    record = json.loads(Path("collapsed.json").read_text())
    assert all(f"`{key}`" in TEXT for key in record if key not in ("target", "unmeasured"))
    assert Path("collapsed.png").stat().st_size > 10_000


def test_a_fine_tuner_finds_the_layer_that_was_tuned(monkeypatch, tmp_path, capsys):
    """The walk-through: the base is kept, one layer is tuned, the comparison names it and says what the change is."""
    (command,) = [words for words in COMMANDS if words[1] == "base.pt"]
    monkeypatch.chdir(tmp_path)
    exec(block("# tuning.py"), {})
    assert main(command) == 0
    shown = capsys.readouterr().out
    rows = re.findall(r"^\W*(\d) +\W +(\S+) ", shown[shown.index("against base.pt") :], re.M)
    assert [name for name, _ in rows] == ["2", "0", "4"]
    assert float(rows[0][1]) > 0.01
    assert [change for _, change in rows[1:]] == ["0", "0"]
    page = Path("tuned.html").read_text(encoding="utf-8")
    assert "What has changed" in page
    assert "principal angles" in page
    assert re.search(r'<td>2</td>(<td class="n">[^<]+</td>){7}</tr>', page)  # a layer is a name, what follows numbers
    assert "mathdefault" not in page  # no formula where a number at an axis should be
    assert "Healthy. Of 3 layers: 3 healthy, 0 degrading, 0 collapsed." in page


def test_the_block_in_python_runs_and_writes_every_form(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    exec(block("import torch\nfrom torch import nn\n\nimport sslcollapse"), {})
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"rows.csv", "all.json", "page.html", "spectra.png"}


def test_the_tables_of_the_calibration_are_those_of_its_record():
    record = json.loads((ROOT / calibration.RECORD).read_text())
    assert calibration.into_page(TEXT, record) == TEXT
    assert record["thresholds"]["output_degrading_below"] == diagnosis.OUTPUT_DEGRADING_BELOW
    assert {name: row["networks"] > 5 for name, row in record["networks"].items()} == {
        "untrained": True,
        "well trained": True,
        "collapsed": True,
    }


def test_a_command_on_a_run_reads_a_run(monkeypatch):
    (command,) = [words for words in COMMANDS if "<hash>" in words[1]]
    called = {}
    monkeypatch.setattr(
        "sslcollapse.rank.diagnose.entry.run_diagnosis", lambda targets, **rest: called.update(rest) or 0
    )
    assert main(command) == 0
    assert called["data"].name == "recipe.json"


def test_the_stated_thresholds_and_names_are_those_of_the_code():
    assert f"below {diagnosis.DEGRADING_BELOW}: half" in TEXT
    assert f"an output below {diagnosis.OUTPUT_DEGRADING_BELOW}" in TEXT
    assert f"below {diagnosis.COLLAPSED_BELOW}: nine in ten" in TEXT
    assert f"fewer than {diagnosis.FEW_DIRECTIONS:g} effective directions" in TEXT
    assert f"where {diagnosis.FEW_DIRECTIONS / diagnosis.COLLAPSED_BELOW:g} or more are attainable" in TEXT
    assert round(diagnosis.random_rank(512, 512) / 512, 3) == 0.805
    assert round(diagnosis.random_rank(512, 4608) / 512, 2) == 0.99
    assert ", ".join(f"`{name}`" for name in WRAPPERS) in " ".join(TEXT.split())
