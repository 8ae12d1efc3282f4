"""Calorimeter showers: a table, and resolution and separation as a plot."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cloudchamber.data.sampling import MOLIERE
from cloudchamber.evaluate import ISOLATED, PAIR, relative, shower_scores
from cloudchamber.metrics import Showers, Width
from cloudchamber.report.plots import STYLE, Curve, draw_curve, log_ticks, save
from cloudchamber.report.tables import Column, percent

ENERGIES = np.array([1.0, 2.0, 4.0, 10.0, 20.0, 50.0])
DISTANCES = np.linspace(0, PAIR, 5)
_FEWEST = 10  # showers behind a point of a plot


def shower_row(name: str, found: Showers) -> dict[str, Any]:
    """A line of a table of ``SHOWER_COLUMNS``."""
    scores = shower_scores(found)
    return {"name": name} | scores | {"response": scores["response"].median}


SHOWER_COLUMNS: tuple[Column, ...] = (
    Column("name", ""),
    *(Column(key, heading, percent) for key, heading in (("efficiency", "Efficiency"), ("separated", "Separated"))),
    *(Column(key, heading, percent) for key, heading in (("fake", "Fake"), ("split", "Split"))),
    Column("response", "Response", lambda value: f"{value:.3f}"),
    *(Column(key, f"Resolution, {key}", percent) for key in ("isolated", "close")),
)


def plot_showers(found: Mapping[str, Showers], path: Path, sums: Collection[str] = ()) -> None:
    """Resolution of isolated showers against energy, and separated pairs against their distance, but of ``sums``."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        for number, (name, own) in enumerate(found.items()):
            alone = own.distance > ISOLATED * MOLIERE
            widths = own.response(np.where(alone, own.energy, np.nan), ENERGIES)
            widths = [relative(width if width.count >= _FEWEST else Width.of(np.zeros(0))) for width in widths]
            numbers = ([100 * getattr(width, part) for width in widths] for part in ("value", "low", "high"))
            draw_curve(left, number, len(found), name, Curve(name, ENERGIES, *numbers).numbers(), True)
            if name not in sums:
                fraction = own.separation(DISTANCES * MOLIERE)
                draw_curve(right, number, len(found), name, Curve(name, DISTANCES, fraction).numbers(), False)
        left.set_xscale("log")
        log_ticks(left.xaxis, ENERGIES[0], ENERGIES[-1])
        left.set(xlim=(ENERGIES[0], ENERGIES[-1]), xlabel="Energy [GeV]", ylabel="Resolution, isolated [%]")
        left.set_ylim(bottom=0)
        right.set(
            xlim=(0, PAIR), ylim=(-0.03, 1.05), xlabel="Distance of the pair [Molière radii]", ylabel="Both found"
        )
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    save(figure, path)
