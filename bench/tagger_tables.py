"""Tables of taggers: trainings by network, number of jets and seed, put together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.baselines import CUTS, TREES, TREES_FULL
from cloudchamber.metrics import Measured, accuracy, auc, rejection
from cloudchamber.report import Column, markdown_table
from cloudchamber.report.tables import plain, seconds

#: Name of a configuration, or of a baseline -> name in tables, in the order of what is published.
NAMES = {
    CUTS: "cuts on mass and τ ratio",
    TREES: "boosted trees",
    TREES_FULL: "boosted trees, full",
    "efn": "energy flow",
    "deepsets": "deep sets",
    "pfn": "particle flow",
    "gat": "graph attention",
    "settransformer": "set transformer",
    "particlenet": "ParticleNet",
    "part": "particle transformer",
    "lorentz": "LorentzNet",
    "lorentz-beam": "LorentzNet with beam",
    "part-full": "particle transformer, full",
    "lorentz-full": "LorentzNet with beam, full",
}
#: Rejection at 30 % that is published, trained on 1.2 million jets of the reference set (arXiv:1902.09914 for the first
#: two, arXiv:2202.03772 for the others).
PUBLISHED = {"efn": 633, "pfn": 888, "particlenet": 1615, "part": 1602, "lorentz": 2195}
SCORES = {"accuracy": "accuracy", "auc": "AUC", "r50": "rejection at 50 %", "r30": "rejection at 30 %"}


@dataclass(frozen=True)
class Result:
    """What one training came to: ``scores`` by their name in ``SCORES``; passes over its jets; ``cpu`` in seconds."""

    network: str
    jets: int
    seed: int
    scores: Mapping[str, Measured]
    cpu: float | None = None
    parameters: int | None = None
    passes: int | None = None
    valid_loss: float | None = None
    threads: int | None = None

    @classmethod
    def of(cls, score: ArrayLike, signal: ArrayLike, **known: Any) -> Result:
        """From the probability of signal of each test jet, and which of them are."""
        value, true = np.asarray(score), np.asarray(signal)
        right = accuracy(np.stack([1 - value, value], axis=1), true.astype(np.int64))
        found = {"accuracy": Measured(float(right.value), float(right.low), float(right.high)), "auc": auc(value, true)}
        found |= {"r50": rejection(value, true, 0.5), "r30": rejection(value, true, 0.3)}
        return cls(scores=found, **known)

    @classmethod
    def of_cuts(cls, scores: Mapping[float, ArrayLike], signal: ArrayLike, **known: Any) -> Result:
        """From scores that are good for one efficiency of signal each."""
        found = {f"r{round(100 * kept)}": rejection(score, signal, kept) for kept, score in scores.items()}
        return cls(scores=found, **known)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)


class Mean(NamedTuple):
    """Over seeds: mean, standard deviation (NaN for a single one), and the error of the test jets, half an interval."""

    value: float
    spread: float
    error: float

    @property
    def total(self) -> float:
        """Both errors together; of the spread that of the mean is not taken, for it is a training that one gets."""
        return math.hypot(self.error, 0.0 if math.isnan(self.spread) else self.spread)

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "–"
        errors = [error for error in (self.spread, self.error) if math.isfinite(error)]
        digits = max(0, 1 - math.floor(math.log10(max([*errors, 1e-9]))))
        return " ± ".join(f"{number:.{digits}f}" for number in (self.value, *errors))


@dataclass(frozen=True)
class Summary:
    """All seeds of a network trained on so many jets."""

    network: str
    jets: int
    seeds: int
    scores: Mapping[str, Mean]
    cpu: float | None
    parameters: int | None
    passes: int | None

    @classmethod
    def of(cls, results: Sequence[Result]) -> Summary:
        """Of results that differ in their seed alone."""
        first = results[0]
        times = [result.cpu for result in results if result.cpu is not None]
        means = {name: _mean([result.scores[name] for result in results]) for name in first.scores}
        cpu = float(np.mean(times)) if times else None
        return cls(first.network, first.jets, len(results), means, cpu, first.parameters, first.passes)


def _mean(numbers: Sequence[Measured]) -> Mean:
    values = np.array([number.value for number in numbers])
    if not np.isfinite(values).all():
        return Mean(math.inf, math.nan, math.nan)
    spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Mean(float(values.mean()), spread, float(np.mean([(n.high - n.low) / 2 for n in numbers])))


def summaries(results: Iterable[Result]) -> list[Summary]:
    """By number of jets, then in the order of ``NAMES``."""
    groups: dict[tuple[int, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.jets, result.network), []).append(result)
    names = list(NAMES)
    order = sorted(groups, key=lambda key: (key[0], names.index(key[1]) if key[1] in NAMES else len(names)))
    return [Summary.of(groups[key]) for key in order]


def markdown(found: Sequence[Summary], signal: int, background: int) -> str:
    """A table for each number of training jets, most first, for so many test jets."""
    columns = [Column("network"), *(Column(name, heading) for name, heading in SCORES.items())]
    columns += [Column("published", "published, 30 %"), Column("parameters", "", plain)]
    columns += [Column("passes", "", plain), Column("cpu", "CPU time to train", seconds), Column("seeds")]
    text = [
        f"Test jets: {plain(signal)} signal, {plain(background)} background. Errors: the standard deviation over the "
        "seeds, where there are several, ± the 68 % interval of the test jets.\n"
    ]
    for jets in sorted({one.jets for one in found}, reverse=True):
        rows = [_row(one) for one in found if one.jets == jets]
        text.append(f"{plain(jets)} training jets:\n\n{markdown_table(rows, columns)}\n")
    return "\n".join(text)


def _row(one: Summary) -> dict[str, Any]:
    row = {"network": NAMES.get(one.network, one.network), "parameters": one.parameters, "seeds": str(one.seeds)}
    row |= {name: str(mean) for name, mean in one.scores.items()}
    return row | {"passes": one.passes, "cpu": one.cpu, "published": PUBLISHED.get(one.network)}
