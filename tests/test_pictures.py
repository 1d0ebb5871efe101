"""The pictures of the guides: all made by one program, each with the numbers of today's records in it."""

import importlib.util
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslcollapse.rank.plots import heat_map_cells

DOCS = Path(__file__).parents[1] / "docs"
MADE = {"pictures/rank_by_depth.png", "pictures/spectrum_fan.png", "images/collapsed.png", "images/report.png"}
OF_RECORDS = {"images/rank_by_depth_cora.png", "results/claims.svg"}
"""Those that `tools/evidence.py` and `ablate` make, which tests of these look at."""
REMAKE = "run 'python docs/pictures.py', and read what the guides say of the picture"


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(pictures):
    return pictures.both()


def shown(name: str):
    """The numbers in a committed picture."""
    with Image.open(DOCS / name) as image:
        return json.loads(image.text["numbers"])


def words(rows) -> list[dict]:
    return [{key: value for key, value in row.items() if isinstance(value, str)} for row in rows]


def figures(row) -> dict:
    return {key: value for key, value in row.items() if isinstance(value, (int, float))}


def test_every_picture_of_the_guides_is_made_by_the_program_and_shown_by_a_guide(pictures, tmp_path, capsys):
    runs = pictures.main(tmp_path, 45)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")} == MADE
    committed = {path for path in DOCS.rglob("*") if path.suffix in (".png", ".jpg", ".jpeg", ".svg", ".gif", ".webp")}
    assert {str(path.relative_to(DOCS)) for path in committed} == MADE | OF_RECORDS
    guides = "".join(path.read_text() for path in DOCS.glob("*.md"))
    for name in MADE:
        assert f"({name})" in guides
        assert 5_000 < (DOCS / name).stat().st_size < 150_000
        with Image.open(tmp_path / name) as image:
            assert json.loads(image.text["numbers"])
    for monitor in runs.values():
        layers, steps, cells = heat_map_cells(monitor.history, "output")
        assert (layers, steps) == ([f"layer{k}" for k in range(1, 6)], list(range(0, 46, 3)))
        last = [row.fraction for row in monitor.history if row.kind == "output" and row.layer == "layer5"]
        np.testing.assert_array_equal(cells[-1], last)
    assert "without WERank: effective rank of the representation" in capsys.readouterr().out


def test_the_picture_of_a_report_shows_what_its_records_say(pictures):
    made = json.loads(json.dumps(pictures.forest_numbers(pictures.forest())))
    numbers = shown("images/report.png")
    assert words(numbers) == words(made), REMAKE
    for row, expected in zip(numbers, made, strict=True):
        assert figures(row) == pytest.approx(figures(expected), rel=1e-6, abs=1e-6), REMAKE


def test_the_differences_in_the_picture_of_a_report_are_those_of_plain_arithmetic(pictures):
    records = [json.loads(line) for line in (DOCS / pictures.RECORDS / "runs.jsonl").read_text().splitlines()]
    found: dict[str, dict[bool, dict[int, float]]] = {}
    for record in records:
        accuracy = record["evaluation"]["public"]["test_accuracy"]["mean"]
        with_it = record["overrides"]["regularizers.werank"] is not None
        found.setdefault(record["base"], {}).setdefault(with_it, {})[record["seed"]] = 100 * accuracy
    rows = {row["cell"].split(" · ")[0]: row for row in shown("images/report.png")}
    assert set(rows) == set(found)
    for base, of in found.items():
        mean = statistics.mean(of[True][seed] - of[False][seed] for seed in of[True])
        assert rows[base]["mean"] == pytest.approx(mean, abs=1e-6), REMAKE
        assert rows[base]["n"] == len(of[True])


def test_the_picture_of_a_diagnosis_shows_the_network_of_its_guide_and_so_does_the_text(pictures):
    made = pictures.diagnosis_numbers(pictures.collapsed())
    numbers = shown("images/collapsed.png")
    assert (list(numbers), words(numbers.values())) == (list(made), words(made.values())), REMAKE
    for layer, values in numbers.items():
        assert figures(values) == pytest.approx(figures(made[layer]), rel=0.01, abs=0.002), REMAKE
    line = r"^    (\S+): weight (\w+): effective rank ([\d.]+) of (\d+), ([\d.]+)"
    lines = re.findall(line, (DOCS / "diagnose.md").read_text(), re.MULTILINE)
    assert {line[0] for line in lines} == {name for name, values in made.items() if values["verdict"] != "healthy"}
    for name, verdict, rank, attainable, share in lines:
        values = made[name]
        assert (verdict, int(attainable)) == (values["verdict"], values["attainable"])
        assert float(rank) == pytest.approx(values["effective_rank"], rel=0.01)
        assert float(share) == pytest.approx(values["of_random"], abs=0.006)


def test_the_pictures_of_the_loop_show_what_the_loop_gives(pictures, runs):
    """Within what another processor's rounding may change over 300 steps."""
    numbers, made = shown("pictures/rank_by_depth.png"), pictures.map_numbers(runs)
    for title, values in made.items():
        assert (numbers[title]["layers"], numbers[title]["steps"]) == (values["layers"], values["steps"]), REMAKE
        np.testing.assert_allclose(numbers[title]["fractions"], values["fractions"], atol=0.05, err_msg=REMAKE)
    numbers, made = shown("pictures/spectrum_fan.png"), pictures.fan_numbers(runs)
    for title, lines in made.items():
        assert list(numbers[title]) == list(lines), REMAKE
        for step, line in lines.items():
            assert numbers[title][step]["attainable"] == line["attainable"] == 128
            np.testing.assert_allclose(numbers[title][step]["shares"], line["shares"], atol=0.05, err_msg=REMAKE)


def test_what_the_guides_say_of_the_loop_is_in_its_picture():
    ends = {title: np.array(of["fractions"])[:, -1] for title, of in shown("pictures/rank_by_depth.png").items()}
    assert (ends["with WERank"] > 0.5).all()  # "every layer ends above half of what is attainable"
    assert (np.diff(ends["without WERank"]) < 0).all()  # "the deeper the more"
    assert ends["without WERank"][-1] < 0.15
