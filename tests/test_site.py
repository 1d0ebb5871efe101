"""The built site: its search finds what a reader types, and its pages are there. Only where the site has been built."""

import json
import re
from pathlib import Path

import pytest

SITE = Path(__file__).parents[1] / "build/site"
TERMS = {
    "effective rank": "docs/reference/rank",
    "CollapseMonitor": "docs/reference/rank",
    "WERank coefficient": "docs/reference/regularizers",
    "layer map": "docs/reference/layers",
    "diagnose checkpoint": "docs/diagnose",
    "rank_floor": "docs/controller",
    "ablation seeds": "docs/ablations",
    "claim verdict": "docs/claims",
    "Slurm": "docs/multi-node",
    "torchrun": "docs/multi-node",
    "bf16": "docs/gpu",
    "neighbourhoods": "docs/large-graphs",
    "objective register": "docs/adding-a-component",
    "SampleDomain": "docs/reference/domains",
    "uniformity": "docs/reference/rank",
    "BGRL": "docs/methods",
    "embedding": "docs/glossary",
    "planetoid": "docs/reference/domains",
    "lightly losses": "docs/adapters",
    "pickle": "docs/security",
    "intervals": "docs/statistics",
    "quickstart": "docs/quickstart",
}
pytestmark = pytest.mark.skipif(not (SITE / "searchindex.js").exists(), reason="run python tools/docs.py build first")


@pytest.fixture(scope="module")
def index() -> dict:
    text = (SITE / "searchindex.js").read_text(encoding="utf-8")
    return json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", text, re.DOTALL)[1])


def found(index: dict, query: str) -> set[str]:
    """Pages that have every word of a query, in text, a title, or as the name of an object."""
    from sphinx.search.en import SearchEnglish

    language, pages = SearchEnglish({}), index["docnames"]
    answers = []
    for word in language.split(query):
        stem, hits = language.stem(word), []
        for table in ("terms", "titleterms"):
            at = index[table].get(stem, [])
            hits += at if isinstance(at, list) else [at]
        named = [entry for group in index["objects"].values() for entry in group if entry[4].lower() == word.lower()]
        hits += [entry[0] for entry in named]
        answers.append({pages[hit] for hit in hits})
    return set.intersection(*answers)


@pytest.mark.parametrize("query", TERMS)
def test_the_search_finds_what_a_reader_types(index, query):
    assert TERMS[query] in found(index, query)


def test_a_word_that_stands_nowhere_is_not_found(index):
    assert found(index, "zyzzyva") == set()


def test_every_page_of_the_documentation_is_a_page_of_the_site(index):
    docs = SITE.parents[1] / "docs"
    pages = {
        f"docs/{path.relative_to(docs).with_suffix('').as_posix()}"
        for path in docs.rglob("*.md")
        if not any(part.startswith(".") for part in path.relative_to(docs).parts)  # what tools leave behind
    }
    assert pages - set(index["docnames"]) == set()
