"""Reading a page as a browser would."""

import csv
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect", "stop"}


class Reader(HTMLParser):
    """Collects links, ids, headings and text, and refuses elements that are closed in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in VOID:
            self.open.append(tag)
        links = [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        self.links += [link for link in links if not link.startswith("data:")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag in ("h2", "h3"):
            self.headings.append("")

    def handle_startendtag(self, tag, attrs) -> None:
        links = [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        self.links += [link for link in links if not link.startswith("data:")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data
        if self.open[-1:] in (["h2"], ["h3"]):
            self.headings[-1] += data


def read(index: Path) -> Reader:
    reader = Reader()
    reader.feed(index.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
