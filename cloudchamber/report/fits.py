"""How good the fitted parameters of tracks are: resolutions against pT and eta, and pulls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from cloudchamber.errors import UserError
from cloudchamber.metrics import PARAMETERS, Residuals, Width, split_widths
from cloudchamber.report.plots import AXES, COLOURS, GREY, STYLE, Curve, draw_curve, log_ticks, save

#: Parameter -> how an axis calls its resolution.
LABELS = {
    "q/pT": r"$p_{\mathrm{T}} \cdot \sigma(q / p_{\mathrm{T}})$",
    "phi": r"$\sigma(\phi)$ [rad]",
    "cot theta": r"$\sigma(\cot\theta)$",
    "d0": r"$\sigma(d_0)$ [mm]",
    "z0": r"$\sigma(z_0)$ [mm]",
}
NAMES = {"q/pT": r"$q / p_{\mathrm{T}}$", "phi": r"$\phi$", "cot theta": r"$\cot\theta$", "d0": "$d_0$", "z0": "$z_0$"}
PT_BINS = np.array([0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 5.0, 10.0])
ETA_BINS = np.linspace(-4, 4, 17)
_FEWEST = 20  # tracks behind a point


def plot_fits(found: Mapping[str, Residuals], directory: Path) -> Iterator[Path]:
    """Resolutions against pT and against eta, and pulls, of fitters by name; yields each path when it is there."""
    for variable, bins in (("pt", PT_BINS), ("eta", ETA_BINS)):
        path = directory / f"resolution_{variable}.png"
        plot_widths(found, path, variable, bins)
        yield path
    path = directory / "pulls.png"
    plot_pulls(found, path)
    yield path


def plot_widths(found: Mapping[str, Residuals], path: str | Path, variable: str, bins: ArrayLike) -> None:
    """Draw the core width of the residual of each parameter in ``bins`` of pt or eta, one curve per fitter.

    Bins with fewer than 20 tracks are left out. Raises ``UserError`` for no fitters or a path that cannot be written.
    """
    edges, axis = np.asarray(bins, np.float64), AXES[variable]
    widths = {label: split_widths(one, "residual", variable, edges) for label, one in found.items()}
    figure, panels, rest = _panels(found)
    with matplotlib.rc_context(STYLE):
        for name, axes in panels.items():
            for i, label in enumerate(found):
                own = [width if width.count >= _FEWEST else Width.of(np.zeros(0)) for width in widths[label][name]]
                numbers = ([getattr(width, part) for width in own] for part in ("value", "low", "high"))
                draw_curve(axes, i, len(found), label, Curve(label, edges, *numbers).numbers(), axis.log)
            axes.set_yscale("log")
            axes.set_xlim(edges[0], edges[-1])
            log_ticks(axes.yaxis, *axes.get_ylim())
            if axis.log:
                axes.set_xscale("log")
                log_ticks(axes.xaxis, edges[0], edges[-1])
            axes.grid(axis="y", color="#e6e8eb", linewidth=0.7)
            axes.set_ylabel(LABELS[name], loc="top")
            axes.set_xlabel(axis.label, loc="right")
        rest.legend(*panels["d0"].get_legend_handles_labels(), loc="upper left", title="Half of the middle 68.3%")
        save(figure, path)


def plot_pulls(found: Mapping[str, Residuals], path: str | Path) -> None:
    """Draw the pulls of each parameter, one outline per fitter, beside a unit Gaussian; the legend has their widths.

    Raises ``UserError`` for no fitters or a path that cannot be written.
    """
    edges = np.linspace(-5, 5, 51)
    centre = (edges[1:] + edges[:-1]) / 2
    figure, panels, rest = _panels(found)
    with matplotlib.rc_context(STYLE):
        for row, (name, axes) in enumerate(panels.items()):
            axes.plot(centre, np.exp(-(centre**2) / 2) / np.sqrt(2 * np.pi), color=GREY, lw=1, label="unit Gaussian")
            for i, (label, one) in enumerate(found.items()):
                pulls = one.pull[np.isfinite(one.pull[:, row]), row]
                density = np.histogram(pulls, edges)[0] / max(len(pulls), 1) / (edges[1] - edges[0])
                colour = COLOURS[i % len(COLOURS)]
                axes.stairs(density, edges, color=colour, label=label, linewidth=1.3)
                core = Width.of(pulls)
                text = f"{core.median:+.2f} ± {core.value:.2f}"
                axes.text(0.97, 0.93 - 0.09 * i, text, color=colour, ha="right", va="top", transform=axes.transAxes)
            axes.set_yscale("log")
            axes.set_ylim(3e-4, 2.5)
            axes.set_xlim(-5, 5)
            axes.set_xlabel(f"Pull of {NAMES[name]}", loc="right")
        panels["q/pT"].set_ylabel("Tracks, normalised", loc="top")
        rest.legend(*panels["q/pT"].get_legend_handles_labels(), loc="upper left", title="Median ± core width")
        save(figure, path)


def _panels(found: Mapping[str, Residuals]) -> tuple[Figure, dict[str, Axes], Axes]:
    """A figure with one panel per parameter, and the place of its legend."""
    if not found:
        raise UserError("nothing to plot: no fits")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 6.2), layout="constrained")
        grid = figure.subplots(2, 3).ravel()
        grid[5].set_axis_off()
        return figure, dict(zip(PARAMETERS, grid[:5], strict=True)), grid[5]
