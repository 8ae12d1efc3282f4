"""Predictions against truth: every score of the field, with its statistical error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloudchamber import physics
from cloudchamber.data import EventSource
from cloudchamber.data.collisions import is_primary
from cloudchamber.data.sampling import MOLIERE
from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics import (
    METRICS,
    STYLES,
    Fraction,
    Match,
    Residuals,
    Selection,
    Showers,
    Width,
    efficiency,
    local_density,
    residuals,
    split_widths,
    trackml_score,
    v_score,
)
from cloudchamber.predictions import read_predictions
from cloudchamber.reconstruct import event_number

SCORES = "scores.json"

#: What the rates are about. The first is what a tracker at a collider is asked for.
SELECTIONS = {
    "pT > 1 GeV": Selection(pt_min=1.0, eta_max=4.0, min_hits=7, min_track_hits=4, charged=True),
    "pT > 0.5 GeV": Selection(pt_min=0.5, eta_max=4.0, min_hits=7, min_track_hits=4, charged=True),
    "all": Selection(min_hits=4, min_track_hits=4),
}
PT_BINS = np.array([0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0])
ETA_BINS = np.linspace(-4, 4, 17)


class Split(NamedTuple):
    """Bins of a property of particles; of which pT (GeV) on and from within which radius (mm) they are counted."""

    bins: NDArray[np.float64]
    pt_min: float = 0.0
    radius_max: float = np.inf


#: What the efficiency is split by: pT (GeV), eta, production radius (mm), other hits within 10 mm of its hits (mean; of
#: particles from the beam line, for those from afar have lonelier hits and are harder to find).
SPLITS = {
    "pt": Split(PT_BINS),
    "eta": Split(ETA_BINS, 1.0),
    "r": Split(np.array([0.0, 10.0, 30.0, 50.0, 80.0, 120.0, 180.0, 260.0, 360.0]), 0.5),
    "density": Split(np.array([0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 25.0, 40.0, 70.0]), 0.5, 10.0),
}


#: Moliere radii: showers nearer than the first are to be separated; one farther from all others is isolated.
PAIR, ISOLATED = 2.0, 5.0


class Scores:
    """Scores that add up event by event.

    ``trackml``, ``trackml_primaries``, ``v`` and ``v_weighted`` are lists with one number per event; ``rates`` holds
    Fractions: selection -> style -> efficiency, purity, fake_rate, duplicate_rate; ``binned`` the efficiency (double
    majority, |eta| < 4, at least 7 hits) in the bins of ``SPLITS``. ``residuals`` are those of fitted parameters, one
    ``Residuals`` per event whose prediction has them and whose truth has vertices and momenta.

    ``showers``, one ``Showers`` per event whose points and objects have energies and whose objects have places. There,
    points are weighted by energy, and those of ``shower_scores`` take the place of ``rates``, which count points.

    Fake and duplicate rates of a selection count the tracks whose fitted pT and eta lie in it (all tracks where a
    prediction has no parameters) with at least ``min_track_hits`` hits. A track is fake when it matches no particle at
    all, selected or not.
    """

    def __init__(self) -> None:
        self.events = 0
        self.per_event: dict[str, list[float]] = {
            name: [] for name in ("trackml", "trackml_primaries", "v", "v_weighted")
        }
        self.rates: dict[str, dict[str, dict[str, Fraction]]] = {}
        self.binned: dict[str, Fraction] = {}
        self.residuals: list[Residuals] = []
        self.showers: list[Showers] = []

    def add(self, predicted: Event, truth: Event) -> None:
        """Count one event."""
        self.events += 1
        self.per_event["v"] += np.atleast_1d(v_score(predicted, truth, weighted=False).v).tolist()
        if "energy" in truth.point and {"energy", "x", "y"} <= truth.object.keys():
            weighted = truth.with_columns("point", weight=truth.point["energy"])
            self.per_event["v_weighted"] += np.atleast_1d(v_score(predicted, weighted).v).tolist()
            self.showers.append(Showers.of(predicted, truth, PAIR * MOLIERE))
            return
        match = Match.of(predicted, truth)
        if "weight" in truth.point:
            primary = is_primary(truth.object["id"]).numpy()
            self.per_event["trackml"] += trackml_score(match).tolist()
            self.per_event["trackml_primaries"] += trackml_score(match, primary).tolist()
            self.per_event["v_weighted"] += np.atleast_1d(v_score(predicted, truth).v).tolist()
        for name, selection in SELECTIONS.items():
            if "px" not in truth.object and name != "all":
                continue
            for style in STYLES:
                self._rates(name, style, selection, match, predicted, truth)
        if "px" in truth.object:
            self._bins(match, truth)
        if {"px", "vx", "charge"} <= truth.object.keys() and {"pt", "charge"} <= predicted.object.keys():
            self.residuals.append(residuals(predicted, truth))

    def _rates(self, name: str, style: str, selection: Selection, match: Match, predicted: Event, truth: Event) -> None:
        fitted = predicted if "pt" in predicted.object else None
        rates = self.rates.setdefault(name, {}).setdefault(style, {})
        for rate, function in METRICS.items():
            if rate == "efficiency":
                kept = {"particles": selection.particles(match, truth), "tracks": selection.tracks(match)}
            else:
                kept = {"tracks": selection.tracks(match, fitted)}
            found = function(match, style, **kept)
            rates[rate] = rates[rate] + found if rate in rates else found

    def _bins(self, match: Match, truth: Event) -> None:
        momentum = [truth.object[name].numpy() for name in ("px", "py", "pz")]
        values = {"pt": physics.pt(*momentum[:2]), "eta": physics.eta(*momentum)}
        if "vx" in truth.object:
            values["r"] = np.hypot(truth.object["vx"].numpy(), truth.object["vy"].numpy())
        if "x" in truth.point:
            values["density"] = local_density(truth)
        for name, value in values.items():
            split = SPLITS[name]
            if np.isfinite(split.radius_max) and "vx" not in truth.object:
                continue
            cuts = {"pt_min": split.pt_min, "radius_max": split.radius_max, "eta_max": 4.0}
            chosen = Selection(**cuts, min_hits=7, min_track_hits=4, charged=True)
            particles, tracks = chosen.particles(match, truth), chosen.tracks(match)
            found = efficiency(match, particles=particles, tracks=tracks, values=value, bins=split.bins)
            self.binned[name] = self.binned[name] + found if name in self.binned else found

    def widths(self) -> dict[str, dict[str, list[Width]]]:
        """Core widths in the bins of pT: ``residual`` and ``pull`` -> parameter -> one per bin; empty without fits."""
        if not self.residuals:
            return {}
        every = Residuals.join(self.residuals)
        return {kind: split_widths(every, kind, "pt", PT_BINS) for kind in ("residual", "pull")}

    def mean(self, name: str) -> tuple[float, float]:
        """Mean over events of a score and its standard error; NaN where there are too few events."""
        values = np.array(self.per_event[name])
        if not len(values):
            return math.nan, math.nan
        return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON: values with errors, and the counts behind each rate."""
        means = {
            name: {"mean": json_number(mean), "error": json_number(error), "per_event": self.per_event[name]}
            for name, (mean, error) in ((name, self.mean(name)) for name in self.per_event)
        }
        rates = {
            name: {style: {rate: json_fraction(f) for rate, f in found.items()} for style, found in styles.items()}
            for name, styles in self.rates.items()
        }
        binned = {
            name: {"edges": SPLITS[name].bins.tolist(), **json_fraction(found)} for name, found in self.binned.items()
        }
        widths = {
            kind: {name: [_width(width) for width in found] for name, found in parameters.items()}
            for kind, parameters in self.widths().items()
        }
        fits = {"edges": PT_BINS.tolist(), **widths} if widths else None
        showers = None
        if self.showers:
            found = shower_scores(Showers.join(self.showers))
            showers = {k: json_fraction(v) if isinstance(v, Fraction) else _width(v) for k, v in found.items()}
        written = {"events": self.events, "scores": means, "rates": rates, "efficiency": binned, "fits": fits}
        return written | {"showers": showers}


def shower_scores(found: Showers) -> dict[str, Any]:
    """Rates of showers, of clusters and of pairs within ``PAIR``, and measured over true energy.

    ``efficiency``, ``separated``, ``fake`` and ``split``; ``response`` of isolated showers, and the widths of what is
    measured over its median, of ``isolated`` showers and of those that are ``close`` to another one.
    """
    near, far = found.response(found.distance / MOLIERE, [0.0, ISOLATED, np.inf])
    return {
        "efficiency": found.efficiency(),
        "separated": found.separation(),
        "fake": found.fake_rate(),
        "split": found.split_rate(),
        "response": far,
        "isolated": relative(far),
        "close": relative(near),
    }


def relative(width: Width) -> Width:
    """Half width over the median: a resolution."""
    return Width(width.value / width.median, width.error / width.median, width.median, width.tails, width.count)


def json_number(value: float) -> float | None:
    """A number as JSON has it: none for one that is not finite."""
    return value if math.isfinite(value) else None


def _width(width: Width) -> dict[str, Any]:
    return {name: value if name == "count" else json_number(value) for name, value in vars(width).items()}


def json_fraction(found: Fraction) -> dict[str, Any]:
    """Value, interval and counts for JSON, lists where there are bins."""

    def numbers(array: Any) -> Any:
        listed = np.asarray(array, dtype=float)
        return [json_number(v) for v in listed.tolist()] if listed.ndim else json_number(float(listed))

    counts = {"passed": np.asarray(found.passed).tolist(), "total": np.asarray(found.total).tolist()}
    return {"value": numbers(found.value), "low": numbers(found.low), "high": numbers(found.high), **counts}


def evaluate(predicted: Iterable[Event], truth: Iterable[Event]) -> Scores:
    """Compare predictions with the truth of the same events, one by one in the same order."""
    scores = Scores()
    for one, other in zip(predicted, truth, strict=True):
        scores.add(one, other)
    return scores


def evaluate_directory(directory: str | Path, source: EventSource) -> Scores:
    """Score what ``reconstruct`` wrote to ``directory`` against the truth of its events; writes ``scores.json`` there.

    Raises ``UserError`` when an event has no truth or no prediction, naming it.
    """
    predictions = read_predictions(directory)
    scores = Scores()
    for index, name in enumerate(source.names):
        truth = source[index]
        if "object" not in truth.point:
            raise UserError(f"{name}: has no truth (which particle each hit belongs to): nothing to evaluate against")
        number = event_number(truth, index)
        if number not in predictions and truth.rows("point"):  # an event without hits has no rows in a submission
            raise UserError(f"{directory}: no prediction for event {number} ({name})")
        if number not in predictions:
            continue
        try:
            scores.add(predictions[number], truth)
        except UserError as error:
            raise UserError(f"{directory}: event {number} ({name}): {error}") from None
    with atomic(Path(directory) / SCORES) as path:
        path.write_text(json.dumps(scores.to_dict(), indent=1))
    return scores
