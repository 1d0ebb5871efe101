"""The tables of an ablation for a paper: LaTeX with booktabs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import summarise
from sslcollapse.ablation.tables.baselines import ENCODER, rows_with
from sslcollapse.ablation.tables.columns import (
    Column,
    columns,
    full_title,
    heads,
    labels,
    number,
    shown_p,
    shown_summary,
)
from sslcollapse.ablation.tables.page import Effect, effects, errors_of
from sslcollapse.core.texts import printable
from sslcollapse.runs.quantities import TRAINED

ESCAPES = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "→": r"$\to$",
    "…": r"\dots{}",
}


def table_latex(ablation: Ablation, records: Records, failures: Mapping[str, str] | None = None) -> str:
    """Means of the metrics in one table, differences to the baseline in a second.

    The document needs ``\\usepackage{booktabs}``.
    """
    metrics = [column for column in columns(ablation, records.of(ablation.cells, ablation.seeds)) if column.metric]
    titles = heads(ablation)
    rows, compared = [], []
    others = rows_with(ablation, records, metrics)
    found = [effects(ablation, records, column) for column in metrics]
    for cell in ablation.cells:
        own = records.of([cell], ablation.seeds)
        start = [escape(label) for label in labels(cell, titles)]
        kind = [TRAINED] if others else []
        means = [shown_summary(summarise(list(column.by_seed(own).values())), column) for column in metrics]
        error = errors_of(cell, ablation.seeds, failures or {})
        rows.append([*kind, *start, str(len(own)), *map(escape, means)] + ([escape(error)] if failures else []))
        if cell.hash in ablation.baselines:
            shown = [_effect(by_hash.get(cell.hash), column) for by_hash, column in zip(found, metrics, strict=True)]
            compared.append([*start, *shown])
    below = [
        [*map(escape, [row.title, *row.labels(titles), str(len(row.records)), *map(row.shown, metrics)])]
        + ([""] if failures else [])
        for row in others
    ]
    names = [escape(full_title(column)) for column in metrics]
    first = [escape(title) for title in titles.values()]
    name = ablation.name.replace("_", "-")
    lines = [r"% Needs \usepackage{booktabs}. Made by sslcollapse ablate; changes here are lost."]
    caption = f"{escape(ablation.name)}: mean $\\pm$ standard deviation over seeds; evaluation in \\%."
    heading = [*([ENCODER] if others else []), *first, "seeds", *names, *(["error"] if failures else [])]
    lines += _table(heading, rows, caption, f"tab:{name}", below)
    if compared:
        caption = (
            f"{escape(ablation.name)}: difference to the baseline, paired over seeds, with 95\\,\\% confidence "
            "intervals and $p$, both corrected by Bonferroni; evaluation in points of \\%."
        )
        lines += ["", *_table([*first, *names], compared, caption, f"tab:{name}-difference")]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(ESCAPES.get(character, character) for character in printable(" ".join(text.split())))


def _table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    label: str,
    below: Sequence[Sequence[str]] = (),
) -> list[str]:
    return [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{caption}}}",
        f"  \\label{{{label}}}",
        f"  \\begin{{tabular}}{{{'l' * len(titles)}}}",
        r"    \toprule",
        f"    {' & '.join(titles)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(row)} \\\\" for row in rows),
        *([r"    \midrule"] if below else []),
        *(f"    {' & '.join(row)} \\\\" for row in below),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]


def _effect(effect: Effect | None, column: Column) -> str:
    if effect is None:
        return "--"
    difference, corrected = effect
    text = f"${number(difference.mean, column, '+')}$"
    if difference.interval:
        text += f" $[{', '.join(number(end, column, '+') for end in difference.interval)}]$"
    return text if corrected is None else f"{text}, ${shown_p(corrected)}$"
