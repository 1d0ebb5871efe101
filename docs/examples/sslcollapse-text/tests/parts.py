"""Small texts for the tests: packages that are made for them, and tables."""

import csv
from pathlib import Path

TOPICS = {
    "animals": "the {a} dog and the {b} cat sleep in the {c} garden of the old house",
    "weather": "a {a} storm brings {b} rain and {c} wind over the cold northern coast",
    "food": "bake the {a} bread with {b} salt and {c} butter until it is golden brown",
}
WORDS = ["red", "small", "quiet", "heavy", "young", "bright", "slow", "sweet", "loud", "dry"]


def sentences(topic: str, count: int, start: int = 0) -> list[str]:
    """Sentences of one topic that all differ."""
    made = []
    for k in range(start, start + count):
        a, b, c = (WORDS[(k // 10**place) % 10] for place in range(3))
        made.append(TOPICS[topic].format(a=a, b=b, c=c))
    return made


def write_tables(folder: Path, train: int = 60, test: int = 10) -> dict[str, str]:
    """Two CSV tables with all topics; what the dataset ``text_table`` needs."""
    for name, count, start in (("train", train, 0), ("test", test, 500)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((text, topic) for topic in TOPICS for text in sentences(topic, count, start))
    return dict(type="text_table", train=str(folder / "train.csv"), test=str(folder / "test.csv"))


def write_package(folder: Path, name: str, modules: int = 30, functions: int = 3) -> None:
    """An installed package that fails when it is imported, with one docstring a function and module.

    Its texts have its name in capitals, and reversed.
    """
    root = folder / name
    (root / "tests").mkdir(parents=True)
    (root / "__init__.py").write_text('"""The package of this name fails on import."""\nraise RuntimeError\n')
    (root / "broken.py").write_text("def half(:\n")
    (root / "tests" / "test_it.py").write_text('"""A docstring of a test module, which nobody shall read."""\n')
    for k in range(modules):
        bodies = [
            f'def f{j}():\n    """Function {j} of module {k} in {name.upper()} returns something for {name[::-1]}.\n\n'
            f'    Parameters\n    ----------\n    x : secret\n    """\n'
            for j in range(functions)
        ]
        header = f'"""Module {k} of {name} has functions for all.\n\nThe same words stand here in every module.\n"""\n'
        (root / f"module{k}.py").write_text(header + "\n".join(bodies))
