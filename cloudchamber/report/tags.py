"""How good a tagger is: ROC, scores, calibration, rejection against pT, and the mass that is left, as plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from cloudchamber.data.jetsource import Jets
from cloudchamber.data.store import atomic
from cloudchamber.metrics import Fraction, roc
from cloudchamber.report.plots import AXES, COLOURS, GREY, STYLE, Curve, draw_curve, log_ticks, save
from cloudchamber.report.tables import Column, Columns, console_table, markdown_table, plain
from cloudchamber.tagged import EFFICIENCIES, Pair, Tagged, TagScores, evaluate_scores, spread

_GRID = "#e6e8eb"
_LINES = ("-", "--", "-.", ":")
MASS, FRACTION = "Jet mass [GeV]", "Fraction of jets"


def tag_table(scores: Sequence[TagScores]) -> Table:
    """The numbers of a tagger with their errors for the console; of several trainings the mean ± spread of one."""
    one = len(scores) == 1
    rows = tag_rows({"value": scores[0].numbers if one else spread(scores)})
    return console_table(
        rows, _columns("value"), _title(scores) + ("" if one else f"; {len(scores)} trainings: ± spread")
    )


def tag_rows(numbers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per number, in columns the taggers by name."""
    scores = dict.fromkeys(score for own in numbers.values() for score in own)
    return [{"score": score} | {name: own.get(score) for name, own in numbers.items()} for score in scores]


def _shown(number: Any) -> str:
    infinite = hasattr(number, "low") and np.isinf(float(number.value)) and np.isfinite(float(number.low))
    return f"> {float(number.low):.4g}" if infinite else plain(number)


def _columns(*names: str) -> Columns:
    return ("score", *(Column(name, name, _shown) for name in names))


def _title(scores: Sequence[TagScores]) -> str:
    missing = max(one.missing for one in scores)
    return f"{len(scores[0].tagged.label)} jets" + (f", {missing} more have no score" if missing else "")


def write_tag_report(directories: Sequence[str | Path], jets: Jets, directory: str | Path) -> Iterator[Path]:
    """Write plots and tables of what ``predict`` wrote to some directories; yields each path when it is there."""
    out, scores = Path(directory), [evaluate_scores(one, jets) for one in directories]
    names = [Path(one).resolve().name for one in directories]
    names = names if len(set(names)) == len(names) else [str(one) for one in directories]
    signals = list(dict.fromkeys(name for one in scores for name in one.pairs))
    for signal in signals:
        pairs = {name: one.pairs[signal] for name, one in zip(names, scores, strict=True) if signal in one.pairs}
        end = f"-{signal}" if len(signals) > 1 else ""
        for stem, plot in _PLOTS.items():
            path = out / f"{stem}{end}.png"
            plot(pairs, path)
            yield path
        for number, (name, pair) in enumerate(pairs.items(), start=1):
            path = out / f"mass{end}{f'-{number}' if len(pairs) > 1 else ''}.png"
            plot_mass(pair, path, name if len(pairs) > 1 else "")
            yield path
    for number, (name, one) in enumerate(zip(names, scores, strict=True), start=1):
        if one.tagged.classes:
            path = out / f"scores{f'-{number}' if len(scores) > 1 else ''}.png"
            plot_scores(one.tagged, path, name if len(scores) > 1 else "")
            yield path
    path = out / "scores.md"
    with atomic(path) as temporary:
        rows = tag_rows({name: one.numbers for name, one in zip(names, scores, strict=True)})
        temporary.write_text(f"{_title(scores)}\n\n{markdown_table(rows, _columns(*names))}\n")
    yield path


@contextmanager
def _drawing(path: str | Path, ratios: Sequence[int] = (1,), width: float = 5.2) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of panels below one another, saved to ``path`` at the end."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 3.7 + 1.1 * (len(ratios) - 1)), layout="constrained")
        panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0].tolist()
        for axes in panels:
            axes.grid(axis="y", color=_GRID, linewidth=0.7)
            axes.set_axisbelow(True)
        yield figure, panels
        figure.align_ylabels()
        save(figure, path)


def plot_roc(pairs: Mapping[str, Pair], path: str | Path) -> None:
    """Rejection of the background against efficiency of the signal, with the binomial errors of the background."""
    with _drawing(path) as (_, (axes,)):
        grid, top = np.linspace(0.05, 1.0, 381), 10.0
        axes.plot(grid, 1 / grid, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="by chance")
        for i, (name, pair) in enumerate(pairs.items()):
            efficiency, mistaken, _ = roc(pair.score, pair.signal)
            number = int((~pair.signal).sum())
            kept = np.rint(mistaken[np.searchsorted(efficiency, grid - 1e-9)] * number).astype(np.int64)
            there = kept > 0
            found = Fraction(kept[there], np.full(there.sum(), number))
            label = f"{name}: AUC {plain(pair.auc)}, {plain(pair.rejection(0.5))} at 50%"
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(grid[there], 1 / found.value, color=colour, linestyle=_LINES[i % 4], linewidth=1.4, label=label)
            axes.fill_between(grid[there], 1 / found.high, 1 / found.low, color=colour, alpha=0.2, linewidth=0)
            top = max(top, float((1 / found.value).max(initial=1.0)))
        pair = next(iter(pairs.values()))
        axes.set(yscale="log", xlim=(0, 1), ylim=(1, 6 * top))
        axes.set_xlabel(f"Efficiency of {pair.name} jets", loc="right")
        axes.set_ylabel(f"Rejection of {pair.background} jets", loc="top")
        axes.legend(loc="upper right")


def plot_scores(tagged: Tagged, path: str | Path, title: str = "") -> None:
    """The probability of each class that is not the background, jets of every class apart."""
    names = [name for i, name in enumerate(tagged.classes) if i != tagged.background] or list(tagged.classes)
    edges = np.linspace(0, 1, 41)
    with _drawing(path, (1,) * len(names)) as (_, panels):
        for name, axes in zip(names, panels, strict=True):
            p, least = tagged.probability[:, tagged.classes.index(name)], 1.0
            for i, kind in enumerate(tagged.classes):
                counts = np.histogram(p[tagged.label == i], edges)[0]
                if counts.sum():
                    _outline(axes, counts, edges, kind, i)
                    least = min(least, 1 / counts.sum())
            axes.set(yscale="log", xlim=(0, 1), ylim=(0.5 * least, 3))
            axes.set_xlabel(f"Probability of {name}", loc="right")
            axes.set_ylabel(FRACTION, loc="top")
        panels[0].legend(loc="upper center", ncols=min(4, len(tagged.classes)))
        panels[0].set_title(title, loc="left", fontweight="bold")


def _outline(axes: Axes, counts: Any, edges: Any, label: str, i: int) -> None:
    """A histogram of unit sum with its statistical errors."""
    number = max(counts.sum(), 1)
    mplhep.histplot(
        counts / number,
        edges,
        yerr=np.sqrt(counts) / number,
        ax=axes,
        label=label,
        color=COLOURS[i % len(COLOURS)],
        linestyle=_LINES[i % 4],
        linewidth=1.3,
    )


def plot_calibration(pairs: Mapping[str, Pair], path: str | Path) -> None:
    """The fraction of signal among jets of a score, with binomial errors, and below how many jets there are."""
    with _drawing(path, (3, 1)) as (_, (upper, lower)):
        upper.plot((0, 1), (0, 1), color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="as it says")
        for i, (name, pair) in enumerate(pairs.items()):
            found, colour = pair.reliability, COLOURS[i % len(COLOURS)]
            good = found.observed.total > 0
            value, low, high = (getattr(found.observed, part)[good] for part in ("value", "low", "high"))
            label = f"{name}: expected calibration error {found.error:.3f}"
            bars: Any = {"fmt": "osD^vPX"[i % 7], "markersize": 4.5, "elinewidth": 1.1, "color": colour}
            upper.errorbar(found.predicted[good], value, yerr=(value - low, high - value), label=label, **bars)
            lower.stairs(found.observed.total, found.edges, color=colour, linestyle=_LINES[i % 4], linewidth=1.3)
        pair = next(iter(pairs.values()))
        upper.set(xlim=(0, 1), ylim=(-0.03, 1.03))
        upper.set_ylabel(f"Fraction that is {pair.name}", loc="top")
        upper.legend(loc="upper left")
        most = max(float(pair.reliability.observed.total.max()) for pair in pairs.values())
        lower.set(yscale="log", ylabel="Jets", ylim=(0.5, 5 * most))
        lower.set_xlabel(f"Score: probability of {pair.name}, not {pair.background}", loc="right")


def plot_rejection_pt(pairs: Mapping[str, Pair], path: str | Path) -> None:
    """Rejection of the background at 50% efficiency of the signal in bins of pT, each with its own threshold."""
    with _drawing(path) as (_, (axes,)):
        edges = next(iter(pairs.values())).pt_edges
        log = bool(edges[0] > 0 and edges[-1] > 4 * edges[0])
        for i, (name, pair) in enumerate(pairs.items()):
            numbers = [np.where(np.isfinite(c), c, np.nan) for c in pair.rejection_pt()]
            draw_curve(axes, i, len(pairs), name, Curve(name, pair.pt_edges, *numbers).numbers(), log)
        pair = next(iter(pairs.values()))
        axes.set_xlim(edges[0], edges[-1])
        if log:
            axes.set_xscale("log")
            log_ticks(axes.xaxis, edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.margins(y=0.15)
        axes.set_xlabel(f"Jet {AXES['pt'].label}", loc="right")
        axes.set_ylabel(f"Rejection of {pair.background} at 50% {pair.name}", loc="top")
        if len(pairs) > 1:
            axes.legend(loc="best")


def plot_mass(pair: Pair, path: str | Path, title: str = "") -> None:
    """The mass of the background before and after cuts on the score, and the ratio of the shapes; of signal before."""
    with _drawing(path, (3, 1)) as (_, (upper, lower)):
        cuts = {efficiency: pair.sculpting(efficiency) for efficiency in EFFICIENCIES}
        first = next(iter(cuts.values()))
        signal = np.histogram(pair.mass[pair.signal], first.edges)[0] / max(pair.signal.sum(), 1)
        upper.stairs(signal, first.edges, fill=True, color="#d5d9e0", label=f"{pair.name}, all")
        _outline(upper, first.before, first.edges, f"{pair.background}, all", 0)
        whole = first.before / max(first.before.sum(), 1)
        lower.axhline(1, color=GREY, linewidth=0.8)
        for i, (efficiency, cut) in enumerate(cuts.items(), start=1):
            note = f"divergence {cut.divergence:.3f} (chance {cut.chance:.3f})"
            _outline(upper, cut.after, cut.edges, f"at {100 * efficiency:g}% {pair.name}: {note}", i)
            good, centre = cut.after > 0, (cut.edges[1:] + cut.edges[:-1]) / 2
            ratio = cut.after[good] / cut.after.sum() / whole[good]
            bars: Any = {"fmt": "sD"[i % 2], "markersize": 3.5, "elinewidth": 1, "color": COLOURS[i]}
            lower.errorbar(centre[good], ratio, yerr=ratio / np.sqrt(cut.after[good]), **bars)
        upper.set(xlim=(first.edges[0], first.edges[-1]))
        upper.set_ylim(0, 1.6 * upper.get_ylim()[1])
        upper.set_ylabel(FRACTION, loc="top")
        upper.set_title(title, loc="left", fontweight="bold")
        upper.legend(loc="upper right")
        lower.set_yscale("log")
        lower.set_ylabel("Cut / all")
        lower.set_xlabel(MASS, loc="right")


#: File -> what draws it for taggers by name.
_PLOTS: dict[str, Callable[[Mapping[str, Pair], Path], None]] = {
    "roc": plot_roc,
    "calibration": plot_calibration,
    "rejection_pt": plot_rejection_pt,
}
