"""How good the tracks are: our fit beside the Kalman fit of ACTS on the same candidates, and the efficiency split.

    python -m bench.quality -o bench-quality

simulates events, finds their tracks, fits every candidate with both, and writes ``quality.md``, ``quality.json`` and
plots. ``--help`` lists the settings.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.compare import machine, make_events
from bench.tracks import describe, write
from cloudchamber.data import EventSource, open_events
from cloudchamber.errors import UserError
from cloudchamber.evaluate import SPLITS, Scores
from cloudchamber.metrics import PARAMETERS, Fraction, Residuals, Width, residuals
from cloudchamber.reconstruct import Reconstructor
from cloudchamber.report import Column, curves, markdown_table, percent, plot_efficiency, plot_fits, split_title
from cloudchamber.tasks.tracks import fitted_tracks, without_outliers

OURS, PEER = "helix fit", "ACTS Kalman fit"
ETAS = (0.0, 1.0, 2.0, 3.0, 4.0)
PTS = (0.15, 0.3, 0.5, 1.0, 2.0, 10.0)
#: Particles from within the beam pipe: others have left no hit that tells of the perigee.
RADIUS = 19.0
_FEWEST = 50  # tracks behind a row

ABOUT = f"""Candidates: the tracks that our reconstruction finds and that match a particle by double majority
(docs/metrics.md). Both fits get the same hits with the same errors, know the same material and take every particle for
a pion; the Kalman fit starts from all hits of a candidate. Truth: the helix from the point of production, within
{RADIUS:g} mm of the beam line, at the perigee. Resolution: half of the middle 68.3% of fitted less true values, with
its statistical error (of q/pT relative); pull: the same of the difference over its fitted error, 1 for right errors;
tails: the fraction beyond three such half widths (0.3% of a Gaussian). Pure candidates have hits of their particle
only. Wrong hits: our fit leaves out hits of too large a chi2, the Kalman fit those whose modules it does not reach."""


@dataclass
class Fits:
    """What both fits make of the candidates of all events, where both have a result; CPU seconds and counts."""

    residuals: Mapping[str, Residuals]
    scores: Scores
    candidates: int
    without: Mapping[str, int]
    cpu: Mapping[str, list[float]]


def fit(events: EventSource, finder: Reconstructor) -> Fits:
    """Find tracks, fit them with both and compare with the truth, event by event."""
    from bench.kf import kalman_fit

    parts: dict[str, list[Residuals]] = {OURS: [], PEER: []}
    cpu: dict[str, list[float]] = {OURS: [], PEER: []}
    candidates, without, scores = 0, {OURS: 0, PEER: 0}, Scores()
    for event in events:
        found = finder(event)
        scores.add(found, event)
        start = time.process_time()
        without_outliers(event, fitted_tracks(event, found.point["object"]))
        cpu[OURS].append(time.process_time() - start)
        refitted, spent = kalman_fit(event, found)
        cpu[PEER].append(spent)
        own = {OURS: _central(residuals(found, event)), PEER: _central(residuals(refitted, event))}
        every = np.union1d(own[OURS].track, own[PEER].track)
        both = np.intersect1d(own[OURS].track, own[PEER].track)
        candidates += len(every)
        for name, one in own.items():
            without[name] += len(every) - len(one.track)
            parts[name].append(one[np.isin(one.track, both)])
        print(".", end="", flush=True)
    print()
    return Fits({name: Residuals.join(one) for name, one in parts.items()}, scores, candidates, without, cpu)


def _central(found: Residuals) -> Residuals:
    return found[(found.radius < RADIUS) & (np.abs(found.eta) < ETAS[-1])]


def bins(found: Residuals) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """|eta| and pT as text, and the mask, of the bins with enough tracks."""
    for low, high in pairwise(ETAS):
        for soft, stiff in pairwise(PTS):
            kept = (np.abs(found.eta) >= low) & (np.abs(found.eta) < high) & (found.pt >= soft) & (found.pt < stiff)
            if kept.sum() >= _FEWEST:
                yield f"{low:g}–{high:g}", f"{soft:g}–{stiff:g}", kept


def rows(found: Mapping[str, Residuals], parameter: int) -> list[dict[str, Any]]:
    """Resolutions and pulls of a parameter, a row per bin."""
    table = []
    for eta, pt, kept in bins(found[OURS]):
        row: dict[str, Any] = {"eta": eta, "pt": pt, "tracks": int(kept.sum())}
        for name, one in found.items():
            row[name] = Width.of(one.residual[kept, parameter])
            row[f"pull {name}"] = Width.of(one.pull[kept, parameter])
        row["ratio"] = f"{row[OURS].value / row[PEER].value:.2f}"
        table.append(row)
    return table


def summary(found: Mapping[str, Residuals]) -> list[dict[str, Any]]:
    """One row per parameter: the ratio of resolutions, geometric mean over bins, and the pulls of all tracks."""
    table = []
    for index, (parameter, _) in enumerate(PARAMETERS.items()):
        own = rows(found, index)
        ratio = np.exp(np.mean([np.log(row[OURS].value / row[PEER].value) for row in own])) if own else np.nan
        line: dict[str, Any] = {"parameter": parameter, "ratio": f"{ratio:.3f}"}
        for name, one in found.items():
            pull = Width.of(one.pull[:, index])
            line |= {
                f"pull {name}": pull,
                f"median {name}": f"{pull.median:+.3f}",
                f"tails {name}": percent(pull.tails),
            }
        table.append(line)
    return table


SUMMARY: tuple[Column | str, ...] = (
    "parameter",
    Column("ratio", "resolution, ours / ACTS"),
    *(Column(f"{what} {name}", f"{what}, {name}") for name in (OURS, PEER) for what in ("pull", "median", "tails")),
)
BINS: tuple[Column | str, ...] = (
    Column("eta", "|η|"),
    Column("pt", "pT, GeV"),
    "tracks",
    *(Column(name, f"resolution, {name}") for name in (OURS, PEER)),
    Column("ratio", "ratio"),
    *(Column(f"pull {name}", f"pull, {name}") for name in (OURS, PEER)),
)


SPLIT_HEADS = {"pt": "pT, GeV", "eta": "η", "r": "production radius, mm", "density": "other hits within 10 mm"}


def efficiency_tables(scores: Scores) -> str:
    """The efficiency in the bins of every split."""
    parts = []
    for name, found in scores.binned.items():
        bins_, pt_min, radius_max = SPLITS[name]
        cut = f"pT > {pt_min:g} GeV, " if pt_min else ""
        cut += f"produced within {radius_max:g} mm of the beam line, " if np.isfinite(radius_max) else ""
        edges = pairwise(bins_)
        table = [
            {"bin": f"{low:g} to {high:g}", "efficiency": Fraction(passed, total), "particles": int(total)}
            for (low, high), passed, total in zip(edges, found.passed, found.total, strict=True)
            if total
        ]
        columns = (Column("bin", SPLIT_HEADS[name]), Column("efficiency", "efficiency", percent), "particles")
        parts += [f"Particles with {cut}|η| < 4, at least 7 hits:", markdown_table(table, columns)]
    return "\n\n".join(parts)


def text(fits: Fits, facts: Mapping[str, Any], events: EventSource) -> str:
    """The Markdown page."""
    pure = {name: one[one.pure] for name, one in fits.residuals.items()}
    share = percent(len(pure[OURS].pt) / max(len(fits.residuals[OURS].pt), 1))
    failed = ", ".join(f"{name} {count}" for name, count in fits.without.items())
    spent = ", ".join(f"{name} {np.median(one):.2f}" for name, one in fits.cpu.items())
    parts = [
        "# Track quality",
        describe(facts),
        f"{len(events)} events, {fits.candidates} candidates; without a result: {failed}. CPU seconds per event for "
        f"the fit of all tracks (median; ours with the errors of the hits): {spent}.",
        ABOUT,
        f"## Pure candidates ({share} of all)",
        markdown_table(summary(pure), SUMMARY),
        "## All candidates",
        markdown_table(summary(fits.residuals), SUMMARY),
    ]
    for index, (parameter, unit) in enumerate(PARAMETERS.items()):
        parts.append(f"## {parameter}{f' ({unit})' if unit else ''}, pure candidates")
        parts.append(markdown_table(rows(pure, index), BINS))
    return "\n\n".join([*parts, "## Efficiency, double majority", efficiency_tables(fits.scores)])


def run(options: argparse.Namespace) -> None:
    """Events, fits, tables and plots."""
    facts = machine()
    path = options.events_from or options.directory / "simulated"
    if not options.events_from:
        make_events(path, options.events, options.pileup, options.seed)
    events = open_events(path)[: options.events]
    finder = Reconstructor(options.model)
    finder(events[0])  # compiles
    fits = fit(events, finder)
    page = text(fits, facts, events)
    print(page)
    numbers = {"machine": facts, "cpu": fits.cpu, "scores": fits.scores.to_dict()}
    for written in write(options.directory, {"quality.md": page, "quality.json": json.dumps(numbers, indent=1)}):
        print(written)
    for written in plot_fits({name: one[one.pure] for name, one in fits.residuals.items()}, options.directory):
        print(written)
    for name, curve in curves("cloudchamber", fits.scores).items():
        plot_efficiency([curve], options.directory / f"efficiency_{name}.png", name, title=split_title(name))


def main() -> None:
    """Compare our helix fit with the Kalman fit of ACTS on the same candidates, and split the efficiency."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", dest="directory", type=Path, default=Path("bench-quality"), help="where to write")
    parser.add_argument("--events", type=int, default=4, help="how many")
    parser.add_argument("--pileup", type=float, default=200.0, help="mean number of pile-up collisions")
    parser.add_argument("--seed", type=int, default=2026, help="not 1, 2 or 3, which training and tests use")
    parser.add_argument("--events-from", type=Path, help="directory of events to take instead of simulating")
    parser.add_argument("--model", type=Path, help="checkpoint of another model than the one that ships")
    options = parser.parse_args()
    options.directory = options.directory.absolute()
    try:
        run(options)
    except (UserError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
