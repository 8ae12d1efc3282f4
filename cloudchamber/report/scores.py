"""What an evaluation found, as tables and as a directory of plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from cloudchamber.data import EventSource
from cloudchamber.data.sampling import MOLIERE
from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError
from cloudchamber.evaluate import PAIR, SPLITS, Scores, evaluate_directory, shower_scores
from cloudchamber.metrics import Fraction, Residuals, Showers
from cloudchamber.predictions import holds_objects, read_predictions
from cloudchamber.reconstruct import Reconstructor, event_number
from cloudchamber.report.display import write_display
from cloudchamber.report.fits import plot_fits
from cloudchamber.report.plots import Curve, plot_efficiency
from cloudchamber.report.showers import plot_showers
from cloudchamber.report.tables import Column, console_table, markdown_table, percent
from cloudchamber.report.views import plot_event

_RATES = ("efficiency", "fake_rate", "duplicate_rate")
_SCORES = {
    "trackml": "TrackML score, all particles",
    "trackml_primaries": "TrackML score, primaries",
    "v": "V-score",
    "v_weighted": "V-score, weighted",
}
_SHOWERS = {
    "efficiency": "Showers found, by energy",
    "separated": f"Showers within {PAIR * MOLIERE:.0f} mm of each other, both found",
    "fake": "Clusters mostly of no shower",
    "split": "Clusters split off",
    "isolated": "Energy resolution, isolated",
    "close": "Energy resolution, close",
}


def score_rows(scores: Scores) -> list[dict[str, str]]:
    """One row per score: name and mean over events with its standard error; of showers their rates and widths."""
    rows = []
    for name, title in _SCORES.items():
        mean, error = scores.mean(name)
        if mean == mean:
            rows.append({"score": title, "value": f"{mean:.4f}" + (f" ± {error:.4f}" if error == error else "")})
    if scores.showers:
        found = shower_scores(Showers.join(scores.showers))
        rows += [{"score": title, "value": percent(found[name])} for name, title in _SHOWERS.items()]
        rows.append({"score": "Energy response, isolated", "value": f"{found['response'].median:.3f}"})
    return rows


def rate_rows(scores: Scores) -> list[dict[str, Any]]:
    """One row per selection and matching style with its rates."""
    return [
        {"particles": name, "matching": style, **{rate: found[rate] for rate in _RATES}}
        for name, styles in scores.rates.items()
        for style, found in styles.items()
    ]


RATE_COLUMNS: tuple[Column | str, ...] = (
    "particles",
    "matching",
    *(Column(rate, rate.replace("_", " "), percent) for rate in _RATES),
)
STAGE_COLUMNS: tuple[Column | str, ...] = (
    "stage",
    Column("efficiency", "pair efficiency", percent),
    Column("purity", "pair purity", percent),
    Column("pairs", "pairs per event"),
)


def score_tables(scores: Scores) -> list[Table]:
    """Scores, and the rates where there are some, for the console."""
    tables = [console_table(score_rows(scores), ("score", "value"), f"{scores.events} events")]
    return tables + ([console_table(rate_rows(scores), RATE_COLUMNS)] if scores.rates else [])


def stage_rows(stages: Mapping[str, Mapping[str, Fraction]], events: int = 1) -> list[dict[str, Any]]:
    """One row per stage of a pipeline: how many true pairs are left, how many pairs are true, how many there are."""
    return [
        {"stage": name, **rates, "pairs": round(int(rates["purity"].total) / events)} for name, rates in stages.items()
    ]


def curves(label: str, scores: Scores) -> dict[str, Curve]:
    """The binned efficiencies of a finder, by variable, ready to be drawn."""
    return {name: Curve(label, SPLITS[name].bins, found) for name, found in scores.binned.items()}


def split_title(variable: str) -> str:
    """Which particles the efficiency in bins of a variable of ``SPLITS`` is of."""
    _, pt_min, radius_max = SPLITS[variable]
    cut = rf"$p_{{\mathrm{{T}}}}$ > {pt_min:g} GeV, " if pt_min else ""
    cut += f"$r$ < {radius_max:g} mm, " if radius_max < float("inf") else ""
    return rf"{cut}$|\eta|$ < 4, $\geq$ 7 hits"


def write_report(
    predictions: str | Path, source: EventSource, directory: str | Path, model: str | Path | None = None
) -> Iterator[Path]:
    """Write plots, tables and the display of the first event; yields each path when it is there.

    ``model``: also run the stages of this checkpoint on the first event. Without truth only the views are made, which
    there are of tracks.
    """
    directory = Path(directory)
    found, views = read_predictions(predictions), not holds_objects(predictions)
    if model is not None and not views:
        raise UserError(f"{predictions}: holds no tracks: there are no stages to show")
    if "object" in source[0].point:
        scores = evaluate_directory(predictions, source)
        for name, curve in curves("cloudchamber", scores).items():
            path = directory / f"efficiency_{name}.png"
            plot_efficiency([curve], path, name, title=split_title(name))
            yield path
        if scores.showers:
            path = directory / "showers.png"
            plot_showers({"cloudchamber": Showers.join(scores.showers)}, path)
            yield path
        if scores.residuals:
            yield from plot_fits({"cloudchamber": Residuals.join(scores.residuals)}, directory)
        text = [markdown_table(score_rows(scores), ("score", "value"))]
        if scores.rates:
            text.append(markdown_table(rate_rows(scores), RATE_COLUMNS))
        if model is not None:
            stages = Reconstructor(model).stage_rates(source[0])
            text.append(markdown_table(stage_rows(stages), STAGE_COLUMNS))
        path = directory / "scores.md"
        with atomic(path) as temporary:
            temporary.write_text("\n\n".join(text) + "\n")
        yield path
    if not views:
        return
    event = source[0]
    number = event_number(event, 0)
    if number not in found:
        raise UserError(f"{predictions}: no prediction for event {number} ({source.names[0]})")
    path = directory / "event.png"
    plot_event(event, found[number], path)
    yield path
    path = directory / "event.html"
    write_display(event, found[number], path, truth=event if "object" in event.point else None)
    yield path
