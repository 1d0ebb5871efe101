"""Where the parts of a figure are, in shares of it, measured with matplotlib's renderer."""

from typing import Any, NamedTuple

AXES_WIDTH, AXES_HEIGHT = 0.5, 0.33
"""What the largest axes keep of a figure's width and height, whatever the labels."""

_SLACK = 1.0  # pixels


class Layout(NamedTuple):
    """Shares of the figure that the largest axes have; texts outside the figure; neighbouring tick labels that meet."""

    width: float
    height: float
    outside: list[str]
    overlapping: list[tuple[str, str]]


def layout(figure: Any) -> Layout:
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    whole = figure.bbox
    largest = max((axes.get_window_extent(renderer) for axes in figure.axes), key=lambda box: box.width * box.height)
    outside, overlapping = [], []
    for text in _texts(figure):
        box = text.get_window_extent(renderer)
        if text.get_text().strip() and text.get_visible() and not _inside(box, whole):
            outside.append(text.get_text())
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [
                tick.label1
                for tick in axis.get_major_ticks()
                if tick.label1.get_visible() and tick.label1.get_text().strip() and low <= tick.get_loc() <= high
            ]
            boxes = [label.get_window_extent(renderer) for label in shown]
            for k, box in enumerate(boxes):
                for j in range(k + 1, len(boxes)):
                    if box.padded(-_SLACK).overlaps(boxes[j].padded(-_SLACK)):
                        overlapping.append((shown[k].get_text(), shown[j].get_text()))
    return Layout(largest.width / whole.width, largest.height / whole.height, outside, overlapping)


def crushed(figure: Any) -> list[str]:
    """What is wrong with a figure's layout, in words; nothing of a good one."""
    found = layout(figure)
    wrong = []
    if found.width < AXES_WIDTH:
        wrong.append(f"axes have {found.width:.2f} of the width")
    if found.height < AXES_HEIGHT:
        wrong.append(f"axes have {found.height:.2f} of the height")
    wrong += [f"{text!r} is outside" for text in found.outside]
    return wrong + [f"{a!r} is on {b!r}" for a, b in found.overlapping]


def _texts(figure: Any) -> list[Any]:
    from matplotlib.text import Text

    ticks = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low <= tick.get_loc() <= high:  # matplotlib keeps labels that it does not draw
                    ticks |= {id(tick.label1), id(tick.label2)}
    return [text for text in figure.findobj(Text) if id(text) not in ticks]


def _inside(box: Any, whole: Any) -> bool:
    return (
        box.x0 >= whole.x0 - _SLACK
        and box.y0 >= whole.y0 - _SLACK
        and box.x1 <= whole.x1 + _SLACK
        and box.y1 <= whole.y1 + _SLACK
    )
