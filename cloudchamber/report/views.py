"""The event view for papers and talks: hits and tracks in x-y and r-z."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cloudchamber.event import Event
from cloudchamber.report.geometry import Picture, array, layers, picture
from cloudchamber.report.plots import AXES, STYLE, log_ticks, save


def plot_event(
    event: Event, predicted: Event, path: str | Path, *, pt_min: float = 1.0, title: str | None = None
) -> None:
    """Draw an event's hits in grey and its tracks with pT > ``pt_min`` (GeV) in the colour of their pT: x-y and r-z.

    ``predicted`` may be the truth event itself. Raises ``UserError`` for several events, positions that are missing or
    not finite, hits that do not correspond, or a path that cannot be written.
    """
    drawn = picture(event, predicted)
    number = event.scene.get("id")
    name = title if title is not None else (f"Event {int(array(number)[0])}" if number is not None else "Event")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.6, 4.9), layout="constrained")
        across, along = figure.subplots(1, 2, width_ratios=[1, 1.35])
        _layers(across, along, layers(event))
        colours = _draw(drawn, across, along, pt_min)
        across.set_aspect("equal", adjustable="datalim")
        across.set(xlabel="$x$ [mm]", ylabel="$y$ [mm]")
        along.set(xlabel="$z$ [mm]", ylabel="$r$ [mm]")
        along.set_ylim(bottom=0)
        shown = int(np.count_nonzero(_chosen(drawn, pt_min)))
        across.set_title(name, loc="left", fontweight="bold")
        cut = rf" with $p_{{\mathrm{{T}}}}$ > {pt_min:g} GeV" if pt_min > 0 else ""
        kept = f"{len(drawn.xyz):,} hits; {shown:,} of {drawn.tracks:,} tracks".replace(",", "\N{NO-BREAK SPACE}")
        along.set_title(kept.replace(";", ",") + cut, loc="right")
        across.locator_params(nbins=5)
        if colours is not None:
            bar = figure.colorbar(colours, ax=along, pad=0.015, aspect=32, label=AXES["pt"].label)
            log_ticks(bar.ax.yaxis, *bar.ax.get_ylim())
        save(figure, path)


def _chosen(drawn: Picture, pt_min: float) -> NDArray[np.bool_]:
    """Tracks with two hits or more above a pT in GeV; all such tracks where it is 0 or less, of unknown pT too."""
    enough = np.diff(drawn.bounds) > 1
    return enough if pt_min <= 0 else enough & (drawn.parameters["pt"] > pt_min)


def _draw(drawn: Picture, across: Axes, along: Axes, pt_min: float) -> LineCollection | None:
    x, y, z = drawn.xyz.T
    r = np.hypot(x, y)
    dots: dict[str, Any] = {"s": 0.5, "color": "#8f96a1", "linewidths": 0, "alpha": 0.5, "rasterized": True}
    across.scatter(x, y, zorder=1, **dots)
    along.scatter(z, r, zorder=1, **dots)
    rows = np.flatnonzero(_chosen(drawn, pt_min))
    if not len(rows):
        return None
    pt = drawn.parameters["pt"]
    rows = rows[np.argsort(np.nan_to_num(pt[rows], nan=-1.0), kind="stable")]  # stiff tracks on top
    known = pt[rows][np.isfinite(pt[rows])]
    low = max(pt_min if pt_min > 0 else float(known.min()) if len(known) else 0.1, 1e-2)
    norm = LogNorm(low, max(2 * low, float(np.quantile(known, 0.995)) if len(known) else 10.0))
    curves = [drawn.curve(row) for row in rows.tolist()]
    width = float(np.clip(14 / np.sqrt(len(rows)), 0.4, 1.3))
    flat = [curve[:, :2] for curve in curves], [np.stack([c[:, 2], np.hypot(c[:, 0], c[:, 1])], axis=1) for c in curves]
    for axes, lines in zip((across, along), flat, strict=True):
        drawing = LineCollection(
            lines,
            cmap=_colours(),
            norm=norm,
            array=np.nan_to_num(pt[rows], nan=low, posinf=1e9),
            linewidths=width,
            zorder=3,
            capstyle="round",
            alpha=float(np.clip(24 / np.sqrt(len(rows)), 0.6, 1)),
        )
        axes.add_collection(drawing)
    return drawing


def _colours() -> Colormap:
    """Viridis without its palest end, which is lost on white."""
    return ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1, 256)))


def _layers(across: Axes, along: Axes, lines: NDArray[np.float32]) -> None:
    faint: dict[str, Any] = {"colors": "#c9cfd8", "linewidths": 0.6, "zorder": 0}
    along.add_collection(LineCollection([((z0, r0), (z1, r1)) for r0, z0, r1, z1 in lines], **faint))
    turn = np.linspace(0, 2 * np.pi, 181)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    across.add_collection(LineCollection([r0 * circle for r0, z0, r1, z1 in lines if r0 == r1], **faint))
