"""Charts of taggers: rejection against the number of parameters, and against the number of training jets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from bench.baselines import CUTS, TREES, TREES_FULL
from bench.tagger_tables import NAMES, Summary
from cloudchamber.report.plots import COLOURS, GREY, STYLE, log_ticks, save
from cloudchamber.report.tables import plain

CHARTS = ("taggers-parameters.png", "taggers-jets.png")
_BASES = {CUTS: ("v", "--"), TREES: ("^", ":"), TREES_FULL: (">", "-.")}
_ALIKE = {"part-full": "part", "lorentz-full": "lorentz-beam"}  # drawn as these, hollow
_LEARNED = [name for name in NAMES if name not in _BASES and name not in _ALIKE]
_MARKERS = "osDPXp*h<"
_COLOURS = (*COLOURS, "#7f3c8d", "#8c5a2b")
_Y = "Background rejection at 50 % signal efficiency"
_AROUND = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.5), (0, -1.5))


def draw(found: Sequence[Summary], directory: Path) -> None:
    """Draw ``CHARTS``, the first for the number of training jets that most networks have had."""
    drawn = [one for one in found if math.isfinite(one.scores["r50"].value)]
    trained = [one for one in drawn if one.parameters]
    if not trained:
        return
    most = max((one.jets for one in trained), key=lambda jets: (sum(one.jets == jets for one in trained), jets))
    with matplotlib.rc_context(STYLE):
        _parameters([one for one in drawn if one.jets == most], directory / CHARTS[0])
        if len({one.jets for one in trained}) > 1:
            _jets(drawn, directory / CHARTS[1])


def _look(name: str) -> dict[str, Any]:
    """Colour and marker, the same in both charts."""
    if name in _BASES:
        return {"color": GREY, "marker": _BASES[name][0]}
    if name in _ALIKE:
        return {**_look(_ALIKE[name]), "fillstyle": "none"}
    i = _LEARNED.index(name) if name in _LEARNED else len(_LEARNED)
    return {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}


def _parameters(found: Sequence[Summary], path: Path) -> None:
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.subplots()
    sizes = [one.parameters for one in found if one.parameters]
    ends = [one.scores["r50"].value + sign * one.scores["r50"].total for one in found for sign in (-1, 1)]
    left = min(sizes) / 4  # room for the names of those without parameters
    axes.set(xscale="log", yscale="log", xlim=(left, max(sizes) * 2), ylim=(0.8 * max(min(ends), 1), 1.4 * max(ends)))
    for one in found:
        value, error = one.scores["r50"].value, one.scores["r50"].total
        if one.parameters:
            axes.errorbar(one.parameters, value, error, linestyle="none", markersize=5, **_look(one.network))
        else:
            axes.axhline(value, color=GREY, linestyle=_BASES[one.network][1], linewidth=1.1)
            name = NAMES[one.network]
            if one.network != CUTS:  # the lines may be close
                axes.text(left * 1.05, value * 1.02, name, color=GREY, fontsize=8, va="bottom")
            else:
                axes.text(left * 1.05, value * 0.98, name, color=GREY, fontsize=8, va="top")
    axes.set_xlabel("Parameters", loc="right")
    axes.set_ylabel(_Y, loc="top")
    axes.set_title(f"{plain(found[0].jets)} training jets", loc="left", fontweight="bold", pad=8)
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        log_ticks(axis, *limits)
    _label(figure, axes, [one for one in found if one.parameters])
    save(figure, path)


def _label(figure: Figure, axes: Axes, found: Sequence[Summary]) -> None:
    """Write a name beside each point, in the first of some places where it hides neither point, name nor line."""
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    lines = [line.get_window_extent() for line in axes.lines if line.get_linestyle() in ("--", ":", "-.")]
    taken = [text.get_window_extent() for text in axes.texts] + [line.padded(1) for line in lines]
    for one in found:
        value, error = one.scores["r50"].value, one.scores["r50"].total
        place = float(one.parameters or 0)
        bar = axes.transData.transform([(place, max(value - error, 1e-3)), (place, value + error)])
        taken.append(Bbox(bar).padded(5))
    for one in found:
        at = one.parameters, one.scores["r50"].value
        for x, y in [(far * x, far * y) for far in (7, 14, 22, 30) for x, y in _AROUND]:
            text = axes.annotate(NAMES.get(one.network, one.network), at, (x, y), textcoords="offset points")
            text.set(fontsize=8, color=_look(one.network)["color"], va="center")
            text.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
            box = text.get_window_extent()
            inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            if inside and not any(box.overlaps(other) for other in taken):
                break
            text.remove()
        taken.append(box)


def _jets(found: Sequence[Summary], path: Path) -> None:
    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    axes = figure.subplots()
    names = [name for name in NAMES if any(one.network == name for one in found)]
    for place, name in enumerate(names):
        own = [one for one in found if one.network == name]
        axes.errorbar(
            [one.jets * 1.04 ** (place - (len(names) - 1) / 2) for one in own],  # side by side
            [one.scores["r50"].value for one in own],
            [one.scores["r50"].total for one in own],
            linestyle=_BASES[name][1] if name in _BASES else "-",
            markersize=4.5,
            linewidth=1.1,
            label=NAMES[name],
            **_look(name),
        )
    axes.set(xscale="log", yscale="log")
    sizes = sorted({one.jets for one in found})
    axes.set_xticks(sizes, [plain(size) for size in sizes])
    axes.set_xlabel("Training jets", loc="right")
    axes.set_ylabel(_Y, loc="top")
    log_ticks(axes.yaxis, *axes.get_ylim())
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    save(figure, path)
