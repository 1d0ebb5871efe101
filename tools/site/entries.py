"""What our Markdown says beyond MyST: entries of public names and of components, and the order of the pages.

A block of code called ``{entry}``, with a public name in it, becomes what the name's docstring says; one called
``{component}``, with a kind and a name, the same of a registered component, with its arguments as a recipe writes them.
Where Markdown is shown by something else, such a block is the code that it is: the name.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import sslcollapse

CONTENTS = Path(__file__).with_name("contents.md").read_text(encoding="utf-8")
TREE = "\n```{toctree}\n:hidden:\n:glob:\n\n*/README\n%s```\n"
APPENDED = {
    "index": CONTENTS,
    "docs/results/README": TREE % "*\n",
    "docs/examples/sslcollapse-text/README": TREE.replace("*/README", "results/*/*") % "",
    "docs/reference/README": TREE.replace("*/README", "*") % "",
}
"""Page → what is added at its end: which pages come below it."""


def entry(match: re.Match[str]) -> str:
    """The reference of one public name."""
    name = match[1]
    target = getattr(sslcollapse, name)
    module, attribute = sslcollapse._LAZY.get(name, ("sslcollapse", name))
    if inspect.isclass(target):
        return autodoc("class", f"sslcollapse.{name}")
    if inspect.isfunction(target):
        return autodoc("function", f"sslcollapse.{name}")
    return autodoc("data", f"{module}.{attribute}")  # what stands below an assignment is found in its own file alone


def component(match: re.Match[str]) -> str:
    """The reference of one component, and what a recipe can say of it."""
    from sslcollapse.recipe.manual import listing

    kind, name = match[1].split()
    target = sslcollapse.REGISTRIES[kind].get(name)
    arguments = listing(kind, name).rpartition("\nArguments:\n")[2]
    written = f"Arguments in a recipe:\n\n```text\n{arguments}\n```\n" if arguments.startswith("  ") else ""
    what = "class" if inspect.isclass(target) else "function"
    return f"{autodoc(what, f'{target.__module__}.{target.__qualname__}')}\n{written}"


def autodoc(what: str, target: str) -> str:
    """A directive of autodoc, within Markdown."""
    options = {"class": "   :members:\n", "data": "   :no-value:\n"}.get(what, "")
    return f"```{{eval-rst}}\n.. auto{what}:: {target}\n{options}```"


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Write a page's Markdown out in what MyST knows."""
    text = source[0]
    text = re.sub(r"```\{entry\}\n(\w+)\n```", entry, text)
    text = re.sub(r"```\{component\}\n(\w+ \w+)\n```", component, text)
    if page != "index":
        text = re.sub(r"(\]\((?:\.\./)+)README\.md", lambda found: linked(found, page), text)
    source[0] = text + APPENDED.get(page, "") + (others(Path(app.srcdir)) if page == "index" else "")


def others(folder: Path) -> str:
    """The pages of docs/ and its folders that the contents do not name yet: a new one is found without a line there."""
    docs = folder / "docs"
    pages = sorted(
        f"docs/{path.relative_to(docs).with_suffix('')}" for path in (*docs.glob("*.md"), *docs.glob("*/README.md"))
    )
    new = [page for page in pages if not re.search(rf"^{re.escape(page)}$", CONTENTS, re.MULTILINE)]
    return "\n".join(["\n```{toctree}", ":hidden:", ":caption: More", "", *new, "```\n"]) if new else ""


def linked(found: re.Match[str], page: str) -> str:
    """A link to the top README, which is the site's first page; others of that name stay."""
    ups = found[1].count("../")
    return f"{found[1]}index.md" if ups == page.count("/") else found[0]


SECTION = re.compile(r"(Args|Attributes|Shapes|Raises|Returns|Yields):")


def plain_text(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Have a docstring, which is written for a terminal, mean the same to Sphinx.

    An indented block after a paragraph is code, a table is one, and a bar is a bar.
    """
    inside = False  # a section such as Args, whose lines are indented too
    marked: list[str] = []
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        if is_row(line):
            marked += table_row(line, not is_row(before))
            continue
        if line and not line.startswith(" "):
            inside = bool(SECTION.fullmatch(line))
        above = next((text for text in reversed(marked) if text.strip()), "")
        if line.startswith("    ") and not before.strip() and not inside and above and not above.startswith(" "):
            marked += ["::", ""]
        code = line.startswith("    ") and not inside
        marked.append(line if code else re.sub(r"(``.*?``)|\|", lambda bar: bar[1] or r"\|", line))
    lines[:] = marked


def is_row(line: str) -> bool:
    """Whether a line is a row of a table between bars."""
    return line.strip().startswith("|") and line.strip().endswith("|") and line.count("|") > 2


def table_row(line: str, first: bool) -> list[str]:
    """A row of a table between bars, as Sphinx reads tables; nothing of the line below the head."""
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    if all(set(cell) <= set("-:") for cell in cells):
        return []
    head = ["", ".. list-table::", "   :header-rows: 1", ""] if first else []
    return [*head, *(f"   {'*' if not number else ' '} - {cell}" for number, cell in enumerate(cells))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    code = "".join(file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("*.[pm]*")))
    app.add_config_value("site_code", code, "env", str)  # where this changes, every page is read anew
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # before Napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
