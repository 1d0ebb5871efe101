"""``sslcollapse-text``: the texts of a recipe, their tokenizer as a file, a bag-of-words baseline, ranks as a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from torch import Tensor

from sslcollapse import DOMAINS, PROBES, RecipeError, SSLCollapseError, load_recipe
from sslcollapse_text.domain import TextDomain, token_counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 for an error of the user's."""
    parser = argparse.ArgumentParser(prog="sslcollapse-text", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in (
        ("corpus", "show how many texts of each class there are, and some of them"),
        ("tokenizer", "write the tokenizer of a recipe, so that other texts can be read with it"),
        ("baseline", "evaluate counts of tokens with the probes of a recipe, without any network"),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("recipe", help="a recipe with the domain 'text'")
        if name == "tokenizer":
            command.add_argument("--out", type=Path, required=True, help="the tokenizer.json to write")
        else:
            command.add_argument("--json", type=Path, help="also write it to this file")
    ranks = commands.add_parser("ranks", help="write the ranks of all layers of an ablation's runs as a table")
    ranks.add_argument("results", type=Path, help="the folder of the results, with runs.jsonl")
    options = parser.parse_args(arguments)
    try:
        if options.command == "ranks":
            table = _ranks(options.results / "runs.jsonl")
            (options.results / "layers.md").write_text(table, encoding="utf-8")
            print(table, end="")
            return 0
        recipe = load_recipe(options.recipe)
        domain = _domain(recipe)
        if options.command == "tokenizer":
            options.out.parent.mkdir(parents=True, exist_ok=True)
            domain.tokenizer.save(str(options.out))
            print(f"{options.out}: {domain.tokenizer.get_vocab_size():,} tokens")
            return 0
        found = _corpus(domain) if options.command == "corpus" else _baseline(recipe, domain)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    except (SSLCollapseError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def tf_idf(domain: TextDomain) -> Tensor:
    """Bag of words [N, V] of exactly the tokens that an encoder reads: log(1 + count) · log(D / documents with it).

    D are the documents that may be pre-trained on, and documents are counted among them only.

    Source: Salton and Buckley 1988.
    """
    counts = token_counts(domain.samples.data[:, 0], domain.vocabulary)
    documents = (counts[domain.samples.pretrain] > 0).sum(0)
    weights = (len(domain.samples.pretrain) / documents.clamp(min=1)).log()
    return counts.log1p() * weights


def _domain(recipe: dict[str, Any]) -> TextDomain:
    place = recipe.get("data_root") or os.environ.get("SSLCOLLAPSE_DATA") or "data"
    domain = DOMAINS.build(recipe["domain"], Path(place))
    if not isinstance(domain, TextDomain):
        raise RecipeError(f"domain.type: needs a recipe of the domain 'text', got {recipe['domain']['type']!r}")
    domain.load()
    return domain


def _corpus(domain: TextDomain) -> dict[str, Any]:
    dataset = domain.dataset
    split = dataset.splits["public"][0]
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    labels = dataset.labels.numpy()
    counts = {part: Counter(labels[rows].tolist()) for part, rows in parts.items()}
    tokens = (domain.samples.data[:, 0] >= 0).sum(1)
    print(f"{domain.describe()}\n{dataset.sizes()}")
    print(
        f"tokens a text: {tokens.float().mean():.1f} on average, {int((tokens == domain.length).sum()):,} at the limit"
    )
    print(f"{'class':<18}{'train':>7}{'validation':>12}{'test':>7}  a text of it")
    for k, name in enumerate(dataset.classes):
        example = dataset.texts[int(split.train[labels[split.train] == k][0])]
        numbers = [counts[part][k] for part in parts]
        print(f"{name:<18}{numbers[0]:>7}{numbers[1]:>12}{numbers[2]:>7}  {example[:60]}")
    return {
        "texts": len(dataset.texts),
        "source": domain.source.describe(),
        "classes": {name: {part: counts[part][k] for part in parts} for k, name in enumerate(dataset.classes)},
        "tokens_a_text": float(tokens.float().mean()),
        "vocabulary": domain.tokenizer.get_vocab_size(),
    }


def _baseline(recipe: dict[str, Any], domain: TextDomain) -> dict[str, Any]:
    probe_set, features = domain.probe_set(), tf_idf(domain)
    found = {}
    for name, spec in recipe["evaluate"].items():
        result = PROBES.build(spec)(features, probe_set)
        found[name] = result.to_json()
        print(
            f"{name:<10} {result.metric}: test {100 * result.test[0]:.2f}, validation {100 * result.validation[0]:.2f}"
        )
    return {
        "features": "log(1 + count of tokens) times inverse document frequency",
        "recipe": recipe["name"],
        "n": {"texts": len(features), "dimensions": features.shape[1], "classes": domain.num_classes},
        "seeds": "none: nothing is drawn",
        "source": domain.source.describe(),
        "evaluation": found,
        "device": "cpu",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("sslcollapse", "sslcollapse-text", "torch", "tokenizers")},
        },
    }


def _ranks(path: Path) -> str:
    """A Markdown table: for each cell and layer the effective rank of weight and output, over the attainable one."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cells: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        changed = ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in record["overrides"].items())
        cells.setdefault(changed or record["name"], []).append(record["rank"])
    lines = []
    for cell, ranks in cells.items():
        count = ranks[0]["representation"]["n"]
        lines += [
            f"## {cell}",
            "",
            f"Effective rank (un-centred) over the attainable one, mean ± standard deviation of {_seeds(len(ranks))}; "
            f"{count:,} un-augmented texts, eval mode.",
            "",
            "| layer | weight | output |",
            "| --- | --- | --- |",
        ]
        for layer, places in ranks[0]["layers"].items():
            found = [
                _over_seeds([r["layers"][layer][place] for r in ranks]) if place in places else "–"
                for place in ("weight", "output")
            ]
            lines.append(f"| {layer} | {' | '.join(found)} |")
        lines.append(f"| representation | – | {_over_seeds([r['representation'] for r in ranks])} |")
        lines.append("")
    return "\n".join(lines)


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _over_seeds(ranks: Sequence[dict[str, Any]]) -> str:
    values = [rank["effective_rank"] for rank in ranks]
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread} / {ranks[0]['attainable']}"


if __name__ == "__main__":
    raise SystemExit(main())
