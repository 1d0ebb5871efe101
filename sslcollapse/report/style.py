"""How plots look: one palette for light and dark pages, ink that takes the page's colour."""

from __future__ import annotations

from typing import Any

INK = "#010203"
"""Colour of text, ticks and frames. In an SVG it is replaced by ``currentColor``; in a PNG it is black to the eye."""

COLOURS = ("#0A7CC0", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
"""After Okabe and Ito, for colour-blind readers; those that stand out from white and from black alike come first."""

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "^", "v", "<", ">", "*", "P", "X")
"""So many that colours and markers have no common divisor: pairs repeat late."""

COURSE = ("#3b82c4", "#a06cd5", "#d6568f", "#d97706")
"""From the first to the last step: hues of equal lightness, so that neither end is lost on white or black."""

DEPTH = ("#0f9aa8", "#4f9d3a", "#9a8c1c", "#a5682a")
"""From the first to the last layer: other hues than those of steps, as light."""

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "sslcollapse",
    "path.simplify_threshold": 0.2,
    "text.parse_math": False,  # names may have dollar signs
}


def course_map() -> Any:
    """The colour map of steps."""
    return _colour_map("course", COURSE)


def depth_map() -> Any:
    """The colour map of layers."""
    return _colour_map("depth", DEPTH)


def _colour_map(name: str, colours: tuple[str, ...]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(name, colours)
