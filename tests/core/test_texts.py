"""Text that others chose, where it is shown and written."""

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table

from sslcollapse.ablation.tables.columns import markdown
from sslcollapse.cli import main
from sslcollapse.core import errors
from sslcollapse.core.console import PlainConsole
from sslcollapse.core.texts import csv_text, in_html, printable
from sslcollapse.report.plot import slug, to_csv
from sslcollapse.report.tables import Table as PageTable
from sslcollapse.training.progress import Reporter


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("‖WᵀW−I‖ σ₁ 10\u202f000 – ×", "‖WᵀW−I‖ σ₁ 10\u202f000 – ×"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("abc\u202etxt.exe", r"abc\u202etxt.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("two\nlines\r", r"two\nlines\r"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_only_what_is_visible_is_shown_as_it_is(text, shown):
    assert printable(text) == shown


def test_every_error_for_people_shows_control_characters_as_escapes():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 6
    for kind in kinds:
        assert str(kind("x\x1b[2J: no\nsuch")) == "x\\x1b[2J: no\nsuch"


def test_an_error_on_the_terminal_has_no_control_characters(capsys):
    assert main(["train", "\x1b]0;title\x07.py"]) == 2
    assert "\\x1b]0;title\\x07.py: no such file" in capsys.readouterr().err


FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "--", "-")


@pytest.mark.parametrize("write", [csv_text, lambda rows: to_csv(rows[0], rows[1:]).decode()])
def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay(write):
    numbers = [-0.5, "-0.5", "+1e-3", "-inf", None, 3, True, "plain", "a=1", "\t=1", "\r=1"]
    read = list(csv.reader(io.StringIO(write([list(FORMULAS), numbers]), newline="")))
    assert read[0] == [f"'{cell}" for cell in FORMULAS]
    assert read[1] == ["-0.5", "-0.5", "+1e-3", "-inf", "", "3", "True", "plain", "a=1", r"\t=1", r"\r=1"]


BRACKETS = "runs [x] [/bold] [red]y[/red] :x: \x1b[2J"
SHOWN = "runs [x] [/bold] [red]y[/red] :x: \\x1b[2J"


def test_a_terminal_shows_brackets_and_colons_as_they_are_in_text_and_in_tables():
    console = PlainConsole(width=200, file=io.StringIO())
    table = Table(title=BRACKETS)
    table.add_column(BRACKETS)
    table.add_row(BRACKETS)
    console.print(BRACKETS)
    console.print(table)
    assert console.file.getvalue().count(SHOWN) == 4


def test_the_log_of_a_run_shows_brackets_as_they_are():
    lines = []
    reporter = Reporter(True, lines.append)
    reporter.console = PlainConsole(file=io.StringIO(), soft_wrap=True)
    reporter.print(f"data: {BRACKETS}")
    assert lines == [f"data: {SHOWN}\n"]


def images(root):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for k in range(3):
                Image.new("RGB", (8, 8)).save(root / part / name / f"{k}.png")
    return dict(
        name="brackets",
        domain=dict(
            type="vision",
            dataset=dict(type="image_folder", train=str(root / "train"), test=str(root / "test"), size=8),
            size=8,
            batch_size=4,
            feed="resident",
        ),
        encoder=dict(type="resnet_narrow", width=2),
        objective=dict(type="simclr", projector=[4, 4]),
        optim=dict(type="adamw", lr=1e-3),
        train=dict(steps=1),
        monitor=dict(every=0),
        evaluate={},
    )


def test_a_data_set_and_a_folder_with_brackets_are_named_as_they_are(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.json").write_text(json.dumps(images(Path("pets [x] [/]").resolve())))
    assert main(["train", "recipe.json", "--dry-run"]) == 0
    assert "pets [x] [/]" in capsys.readouterr().out
    assert main(["train", "recipe.json", "--out", "runs [x]"]) == 0
    assert "→  runs [x]/brackets/" in capsys.readouterr().out
    assert list(Path("runs [x]").rglob("result.json"))


def test_a_plain_console_would_not_do():
    """What the tests above guard against: rich takes brackets for its own."""
    console = Console(width=200, file=io.StringIO())
    console.print("runs [x]")
    assert "[x]" not in console.file.getvalue()


def test_pages_show_markup_and_control_characters_as_text():
    assert in_html("<b>\x1b[2J\u202e") == r"&lt;b&gt;\x1b[2J\u202e"
    assert "\x1b" not in "".join(markdown(["a\x1b"], [["b\x1b|"]]))
    assert "\x1b" not in PageTable("t", "t", ["a\x1b"], [["b\x1b"]]).html()


@pytest.mark.parametrize(("name", "file"), [("..", ""), (".hidden", "hidden"), ("../../x", "x"), ("a/b", "a_b")])
def test_a_name_of_a_page_or_plot_is_never_a_place_above_or_hidden(name, file):
    assert slug(name) == file
