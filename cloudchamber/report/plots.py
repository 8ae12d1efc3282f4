"""Efficiencies for papers and talks, and the style of all plots, drawn off-screen with matplotlib."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as MplAxis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError

Float = NDArray[np.float64]

#: Okabe and Ito's palette, told apart by the colour-blind, strongest contrasts first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
GREY = "#8a8f98"

STYLE: Any = {
    "font.family": ["TeX Gyre Heros", "DejaVu Sans"],  # the second lends glyphs that the first lacks
    "mathtext.fontset": "stixsans",
    "font.size": 10,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "xtick.major.size": 5,
    "ytick.major.size": 5,
    "xtick.minor.size": 2.5,
    "ytick.minor.size": 2.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "cloudchamber",  # the same plot gives the same file
}


def find_fonts() -> None:
    """Add the fonts of formulas that come with matplotlib, where its list, kept from another time, lacks them."""
    if "STIXGeneral" not in {font.name for font in fontManager.ttflist}:
        for path in Path(matplotlib.get_data_path(), "fonts", "ttf").glob("STIX*.ttf"):
            fontManager.addfont(path)


find_fonts()


class Axis(NamedTuple):
    """A variable on a horizontal axis: its label with unit, and whether the axis is logarithmic."""

    label: str
    log: bool = False


AXES = {
    "pt": Axis(r"$p_{\mathrm{T}}$ [GeV]", True),
    "eta": Axis(r"$\eta$"),
    "phi": Axis(r"$\phi$ [rad]"),
    "r": Axis("Production radius [mm]"),
    "density": Axis("Other hits within 10 mm", True),
    "d0": Axis(r"$d_0$ [mm]"),
    "z0": Axis(r"$z_0$ [mm]"),
    "hits": Axis("Hits"),
}


@dataclass(frozen=True)
class Curve:
    """A binned efficiency of one track finder.

    ``edges`` has shape ``(bins + 1,)``; ``value``, ``low`` and ``high`` (the ends of the interval) have shape
    ``(bins,)`` and are nan in an empty bin. ``value`` may be a ``Fraction``, which brings its interval and counts.
    ``counts``, shape ``(bins,)``: particles per bin.
    """

    label: str
    edges: ArrayLike
    value: Any
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    counts: ArrayLike | None = None

    def numbers(self) -> tuple[Float, Float, Float, Float, Float | None]:
        """edges, value, low, high and counts as arrays; raises ``UserError`` when their shapes do not fit."""
        fraction = hasattr(self.value, "low")
        value, low, high = (self.value.value, self.value.low, self.value.high) if fraction else self._given()
        counts = getattr(self.value, "total", None) if self.counts is None else self.counts
        edges = np.asarray(self.edges, np.float64)
        columns = {"value": value, "low": low, "high": high, "counts": counts}
        arrays = {name: np.asarray(c, np.float64) for name, c in columns.items() if c is not None}
        for name, column in arrays.items():
            if column.shape != (len(edges) - 1,):
                raise UserError(f"curve {self.label!r}: {name} has shape {column.shape}, edges {edges.shape}")
        return edges, arrays["value"], arrays["low"], arrays["high"], arrays.get("counts")

    def _given(self) -> tuple[ArrayLike, ArrayLike, ArrayLike]:
        return self.value, self.value if self.low is None else self.low, self.value if self.high is None else self.high


def plot_efficiency(
    curves: Sequence[Curve],
    path: str | Path,
    variable: str,
    *,
    quantity: str = "Efficiency",
    title: str = "",
    counted: str = "Particles",
) -> None:
    """Draw binned efficiencies of several finders with their errors, and below them the spectrum if counts are known.

    ``variable``: a key of ``AXES``, or any other label; the suffix of ``path`` says PNG, PDF or SVG. Raises
    ``UserError`` for no curves, shapes that do not fit or a path that cannot be written.
    """
    if not curves:
        raise UserError("nothing to plot: no curves")
    axis = AXES.get(variable, Axis(variable))
    numbers = [curve.numbers() for curve in curves]
    for curve, (edges, *_) in zip(curves, numbers, strict=True):
        if axis.log and edges.min() <= 0:
            raise UserError(
                f"curve {curve.label!r}: an edge at {edges.min():g} is not on the logarithmic axis of {variable}"
            )
    counts = next(((edges, n) for edges, _, _, _, n in numbers if n is not None), None)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.9 if counts else 3.9), layout="constrained")
        if counts:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
            _spectrum(lower, *counts, counted)
        else:
            upper = lower = figure.subplots()
        for i, (curve, own) in enumerate(zip(curves, numbers, strict=True)):
            draw_curve(upper, i, len(curves), curve.label, own, axis.log)
        _limits(upper, numbers, axis.log)
        upper.set_ylabel(quantity, loc="top")
        lower.set_xlabel(axis.label, loc="right")
        if axis.log:
            log_ticks(lower.xaxis, *lower.get_xlim())
        upper.set_title(title, loc="left", fontweight="bold", pad=8)
        columns = min(len(curves), 3 if max(len(curve.label) for curve in curves) < 18 else 2)
        figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=columns)
        figure.align_ylabels()
        save(figure, path)


def draw_curve(axes: Axes, i: int, n: int, label: str, own: tuple[Any, ...], log: bool) -> None:
    """Draw ``Curve.numbers`` as curve ``i`` of ``n``, the points of different curves side by side."""
    edges, value, low, high, _ = own
    left, right = (np.log(edges[:-1]), np.log(edges[1:])) if log else (edges[:-1], edges[1:])
    place = (left + right) / 2 + (right - left) * 0.16 * (i - (n - 1) / 2) / max(1, (n - 1) / 2)
    x = np.exp(place) if log else place
    good = np.isfinite(value)
    errors = np.nan_to_num([np.clip(value - low, 0, None), np.clip(high - value, 0, None)])
    colour, hollow = COLOURS[i % len(COLOURS)], i % 2 == 1
    axes.errorbar(
        x[good],
        value[good],
        yerr=errors[:, good],
        xerr=[(x - edges[:-1])[good], (edges[1:] - x)[good]],
        fmt=_MARKERS[i % len(_MARKERS)],
        color=colour,
        markerfacecolor="white" if hollow else colour,
        markersize=4.5,
        markeredgewidth=1.1,
        elinewidth=1.1,
        label=label,
        zorder=3 + i,
    )


def _limits(axes: Axes, numbers: Sequence[tuple[Any, ...]], log: bool) -> None:
    edges = np.concatenate([own[0] for own in numbers])
    axes.set_xlim(edges.min(), edges.max())
    if log:
        axes.set_xscale("log")
    values = np.concatenate(
        [np.concatenate([own[2][np.isfinite(own[1])], own[3][np.isfinite(own[1])]]) for own in numbers]
    )
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high <= 1.0 and low >= 0.45:  # efficiencies: up to one, from a round number below
        low = np.floor((low - 0.02) * 10) / 10
        axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.set_ylim(low, 1 + 0.07 * (1 - low))
    else:
        axes.set_ylim(0, max(1.15 * high, 1e-3) if high < 0.9 else 1.07)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)


def _spectrum(axes: Axes, edges: Float, counts: Float, counted: str) -> None:
    mplhep.histplot(counts, edges, ax=axes, histtype="fill", color="#d5d9e0", edgecolor=GREY, linewidth=0.8)
    seen = counts[counts > 0]
    if len(seen) and seen.max() > 50 * seen.min():
        axes.set_yscale("log")
        axes.set_ylim(max(0.5, seen.min() / 3), seen.max() * 4)
    else:
        axes.set_ylim(0, 1.25 * max(counts.max(initial=0), 1))
    axes.set_ylabel(counted)


def log_ticks(axis: MplAxis, low: float, high: float) -> None:
    """Label a logarithmic axis from ``low`` to ``high`` with plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(LogLocator(subs=tuple(range(2, 10)), numticks=50))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, PDF or SVG, the same bytes each time; raises ``UserError`` when it cannot."""
    kind = Path(path).suffix[1:].lower()
    if kind not in ("png", "pdf", "svg"):
        raise UserError(f"{path}: a plot can be saved as .png, .pdf or .svg")
    dated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    log = logging.getLogger("fontTools")  # remarks on the dates inside the fonts that it embeds
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with atomic(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=dated, dpi=200 if kind == "png" else 300)
    finally:
        log.setLevel(level)
