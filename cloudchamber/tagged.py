"""Scores of jets against their truth, of one tagger or of several trainings of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudchamber.data.jetsource import RANGE_JETS, Jets
from cloudchamber.data.ranges import readable
from cloudchamber.data.store import atomic, one_line
from cloudchamber.errors import UserError
from cloudchamber.evaluate import SCORES, json_fraction, json_number
from cloudchamber.metrics import (
    Measured,
    Reliability,
    Sculpting,
    Width,
    accuracy,
    auc,
    binned_rejection,
    rejection,
    reliability,
    sculpting,
)
from cloudchamber.predict import SCORES as TABLE
from cloudchamber.predict import label_names

Floats = NDArray[np.float64]

#: Efficiencies of signal at which the rejection is told.
EFFICIENCIES = (0.5, 0.3)
PT_BINS, MASS_BINS = 6, 40
_KNOWN = ("pt", "mass")
_PLACE = ("id", "file", "row", "label")


def holds_scores(directory: str | Path) -> bool:
    """Whether a directory has what ``predict`` writes."""
    return (Path(directory) / TABLE).is_file()


@dataclass(frozen=True, eq=False)
class Tagged:
    """Scores of jets and their truth.

    ``probability`` (jets, classes); ``label`` (jets,): number of the class, -1 where it has none of them; ``pt`` and
    ``mass`` (jets,), GeV; ``numbers``: name -> found and true values, ``(jets,)`` each, of what was regressed.
    """

    classes: tuple[str, ...]
    probability: Floats
    label: NDArray[np.int64]
    pt: Floats
    mass: Floats
    numbers: Mapping[str, tuple[Floats, Floats]]

    @property
    def background(self) -> int:
        """The class that others are told from: ``qcd`` if there is such a one, or else the first."""
        names = [name.casefold() for name in self.classes]
        return names.index("qcd") if "qcd" in names else 0

    def pairs(self) -> dict[str, Pair]:
        """Each class that has jets, beside the background."""
        back, found = self.background, {}
        for number, name in enumerate(self.classes):
            chosen = (self.label == number) | (self.label == back)
            if number != back and (self.label == number).any() and (self.label == back).any():
                p = self.probability[chosen]
                both = p[:, number] + p[:, back]
                score = np.divide(p[:, number], both, out=np.full(len(p), 0.5), where=both > 0)
                signal = self.label[chosen] == number
                found[name] = Pair(name, self.classes[back], score, signal, self.pt[chosen], self.mass[chosen])
        return found


@dataclass(frozen=True, eq=False)
class Pair:
    """Jets of a signal and of the background: ``score`` (jets,) = p_signal / (p_signal + p_background), ``signal``,
    which are, ``pt`` and ``mass`` (GeV)."""

    name: str
    background: str
    score: Floats
    signal: NDArray[np.bool_]
    pt: Floats
    mass: Floats

    @cached_property
    def auc(self) -> Measured:
        """The area under the ROC curve."""
        return auc(self.score, self.signal)

    def rejection(self, efficiency: float) -> Measured:
        """Of the background, at an efficiency of the signal."""
        return rejection(self.score, self.signal, efficiency)

    @cached_property
    def reliability(self) -> Reliability:
        """Of the score as the probability to be signal, both kinds weighed as they come."""
        return reliability(self.score, self.signal)

    @cached_property
    def pt_edges(self) -> Floats:
        """Bins of pT (GeV) with as many jets of signal each."""
        edges = np.unique(np.quantile(self.pt[self.signal], np.linspace(0, 1, PT_BINS + 1)))
        return edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1.0])

    def rejection_pt(self, efficiency: float = 0.5) -> tuple[Floats, Floats, Floats]:
        """Value, low and high in the bins of pT, each with its own threshold."""
        return binned_rejection(self.score, self.signal, self.pt, self.pt_edges, efficiency)

    def sculpting(self, efficiency: float) -> Sculpting:
        """What the cut at an efficiency of the signal does to the mass of the background."""
        top = float(np.quantile(self.mass[~self.signal], 0.995))
        return sculpting(
            self.score, self.signal, self.mass, np.linspace(0, top if top > 0 else 1, MASS_BINS + 1), efficiency
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        bins, cuts = self.rejection_pt(), {f"{eff:g}": self.sculpting(eff) for eff in EFFICIENCIES}
        return {
            "background": self.background,
            "auc": _json(self.auc),
            "rejection": {f"{eff:g}": _json(self.rejection(eff)) for eff in EFFICIENCIES},
            "rejection_pt": {"edges": self.pt_edges.tolist()}
            | {name: _listed(c) for name, c in zip(("value", "low", "high"), bins, strict=True)},
            "calibration": {
                "error": json_number(self.reliability.error),
                "edges": self.reliability.edges.tolist(),
                "predicted": _listed(self.reliability.predicted),
                "observed": json_fraction(self.reliability.observed),
            },
            "sculpting": {
                name: {"divergence": json_number(cut.divergence), "chance": json_number(cut.chance)}
                for name, cut in cuts.items()
            },
        }


class TagScores:
    """All scores of a tagger: ``numbers`` by name, a float or something with ``value``, ``low`` and ``high`` each."""

    def __init__(self, tagged: Tagged, missing: int = 0) -> None:
        self.tagged, self.missing, self.pairs = tagged, missing, tagged.pairs()
        self.numbers: dict[str, Any] = {}
        if tagged.classes:
            self.numbers["accuracy"] = accuracy(tagged.probability, tagged.label)
        for name, pair in self.pairs.items():
            of = f"{name} against {pair.background}: "
            self.numbers[f"{of}AUC"] = pair.auc
            for efficiency in EFFICIENCIES:
                self.numbers[f"{of}rejection at {100 * efficiency:g}%"] = pair.rejection(efficiency)
            self.numbers[f"{of}calibration error"] = pair.reliability.error
            for efficiency in EFFICIENCIES:
                self.numbers[f"{of}mass divergence at {100 * efficiency:g}%"] = pair.sculpting(efficiency).divergence
        self.widths = {name: Width.of(found - true) for name, (found, true) in tagged.numbers.items()}
        for name, width in self.widths.items():
            self.numbers[f"{name}: resolution"] = width
            self.numbers[f"{name}: median error"] = width.median

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        found: dict[str, Any] = {"jets": len(self.tagged.label), "missing": self.missing}
        found["classes"] = {name: int((self.tagged.label == i).sum()) for i, name in enumerate(self.tagged.classes)}
        if "accuracy" in self.numbers:
            found["accuracy"] = json_fraction(self.numbers["accuracy"])
        found["signals"] = {name: pair.to_dict() for name, pair in self.pairs.items()}
        widths = {name: {key: json_number(value) for key, value in vars(w).items()} for name, w in self.widths.items()}
        return found | {"numbers": widths}


def spread(scores: Sequence[TagScores]) -> dict[str, Measured]:
    """Of several trainings the mean of each number, and around it the standard deviation of one of them.

    NaN where a number is not finite. Raises ``UserError`` when they do not have the same numbers.
    """
    found = {}
    for name in scores[0].numbers:
        if any(name not in one.numbers for one in scores):
            raise UserError(f"taggers of other classes: expected {name!r} of each")
        values = np.array([float(getattr(s.numbers[name], "value", s.numbers[name])) for s in scores])
        known = bool(np.isfinite(values).all())
        mean, width = (float(values.mean()), float(values.std(ddof=1))) if known else (math.nan, math.nan)
        found[name] = Measured(mean, mean - width, mean + width)
    return found


def evaluate_scores(directory: str | Path, jets: Jets) -> TagScores:
    """Score what ``predict`` wrote to ``directory`` against the truth of its jets; writes ``scores.json`` there.

    Jets that cannot be read, or have no score, are counted as ``missing``. Raises ``UserError`` as ``read_tagged``.
    """
    scores = TagScores(*read_tagged(directory, jets))
    with atomic(Path(directory) / SCORES) as path:
        path.write_text(json.dumps(scores.to_dict(), indent=1))
    return scores


def read_tagged(directory: str | Path, jets: Jets) -> tuple[Tagged, int]:
    """The scores of ``directory`` beside the truth of the jets, and how many of these have none.

    Raises ``UserError`` when there are no scores, or of jets that are not there, or no jet has a label or a number to
    compare with.
    """
    path = Path(directory) / TABLE
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read: {one_line(error)}") from None
    for name in ("file", "row"):
        if name not in table:
            raise UserError(f"{path}: expected a column {name}, found {', '.join(map(str, table.columns))}")
    classes = tuple(str(name)[2:] for name in table.columns if str(name).startswith("p_"))
    regressed = [str(name) for name in table.columns if name not in _PLACE and not str(name).startswith("p_")]
    parts = [_truth(path, jets, number, table, classes, regressed) for number in range(len(jets.files))]
    known = {file.path.name for file in jets.files}
    for name in table["file"].unique():
        if name not in known:
            raise UserError(f"{path}: scores of {name}, which {jets.path} has not")
    found = pd.concat(parts, ignore_index=True)
    if not ((found["label"] >= 0).any() or regressed):
        raise UserError(f"{jets.path}: no jet has a label of {', '.join(classes)}: nothing to evaluate against")
    probability = found[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    numbers = {name: (_column(found, name), _column(found, f"true {name}")) for name in regressed}
    columns = (found["label"].to_numpy(np.int64), _column(found, "pt"), _column(found, "mass"))
    return Tagged(classes, probability, *columns, numbers), len(jets) - len(found)


def _truth(
    path: Path, jets: Jets, number: int, table: pd.DataFrame, classes: Sequence[str], regressed: Sequence[str]
) -> pd.DataFrame:
    """The rows of the scores of one file, with the truth of their jets."""
    file, begin = jets.files[number].path.name, int(jets.starts[number])
    own = table[table["file"] == file].sort_values("row", kind="stable")
    row = own["row"].to_numpy()
    if not (np.diff(row) > 0).all():
        raise UserError(f"{path}: row {row[:-1][np.diff(row) <= 0][0]} of {file} is there twice")
    label = np.full(len(own), -1)
    true = {name: np.full(len(own), np.nan) for name in (*_KNOWN, *(f"true {name}" for name in regressed))}
    seen, code = np.zeros(len(own), bool), {name: i for i, name in enumerate(classes)}
    for start in range(begin, int(jets.starts[number + 1]), RANGE_JETS):
        for first, event in readable(jets, start, min(start + RANGE_JETS, int(jets.starts[number + 1])), []):
            rows = np.arange(first - begin + 1, first - begin + 1 + len(event))
            place = np.minimum(np.searchsorted(row, rows), max(len(row) - 1, 0))
            hit = row[place] == rows if len(row) else np.zeros(len(rows), bool)
            seen[place[hit]] = True
            if "label" in event.scene:
                names = label_names(event.scene["label"], jets.labels or classes)
                label[place[hit]] = np.array([code.get(str(name), -1) for name in names])[hit]
            for name, column in true.items():
                if (given := event.scene.get(name.removeprefix("true "))) is not None:
                    column[place[hit]] = given.numpy()[hit]
    if not seen.all():
        raise UserError(f"{path}: a score of row {row[~seen][0]} of {file}, where no such jet can be read")
    return own.assign(label=label, **true)


def _column(table: pd.DataFrame, name: str) -> Floats:
    return table[name].to_numpy(np.float64)


def _listed(values: Floats) -> list[float | None]:
    return [json_number(value) for value in values.tolist()]


def _json(found: Measured) -> dict[str, float | None]:
    return {name: json_number(value) for name, value in vars(found).items()}
