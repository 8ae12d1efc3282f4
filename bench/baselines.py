"""What a tagger has to beat: cuts on the mass of a jet and its N-subjettiness, and boosted trees on such numbers.

A second set of trees is told of tracks as well: for what is gained by the network, and not by what it is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudchamber.data.constituents import MOMENTUM, constituent_columns
from cloudchamber.data.smear import CHARGED, ELECTRON, MUON
from cloudchamber.event import Event
from cloudchamber.metrics import rejection
from cloudchamber.physics import n_subjettiness

Float = NDArray[np.float64]
CUTS, TREES, TREES_FULL = "cuts", "trees", "trees-full"
SHAPES = ("mass", "multiplicity", "tau1", "tau2", "tau3")
#: How many charged particles, electrons and muons, and the largest ``signif_d0``, most displaced first.
TRACKS = ("charged", "leptons", *(f"displaced{n}" for n in range(1, 5)))
#: Name of trees -> the columns of ``Features`` that they know.
FORESTS = {TREES: SHAPES, TREES_FULL: SHAPES + TRACKS}
#: What the cuts may be on, beside the mass: N-subjettiness N over N - 1.
RATIOS = {"tau32": ("tau3", "tau2"), "tau21": ("tau2", "tau1")}


@dataclass(frozen=True)
class Features:
    """Numbers of jets, ``(jets,)`` each: ``SHAPES``, mass in GeV, and ``TRACKS`` where there are; which are signal."""

    columns: Mapping[str, Float]
    signal: NDArray[np.bool_]

    @classmethod
    def of(cls, event: Event) -> Features:
        """Of a batch of jets."""
        momentum = np.stack([event.point[name].numpy() for name in MOMENTUM], axis=1)
        tau = n_subjettiness(momentum, event.count["point"].numpy())
        columns = {"mass": event.scene["mass"].numpy(), "multiplicity": event.count["point"].numpy()}
        columns |= {f"tau{n}": column for n, column in enumerate(tau.T, start=1)}
        if {"type", "sigma_d0"} <= event.point.keys():
            columns |= _tracks(event)
        return cls(
            {name: column.astype(np.float64) for name, column in columns.items()}, event.scene["label"].numpy() == 1
        )

    def first(self, number: int) -> Features:
        """Of the first so many of these."""
        return Features({name: column[:number] for name, column in self.columns.items()}, self.signal[:number])

    def ratio(self, name: str) -> Float:
        """One of ``RATIOS``, 0 where it is not defined."""
        above, below = (self.columns[column] for column in RATIOS[name])
        return np.divide(above, below, out=np.zeros_like(above), where=below > 0)

    def __len__(self) -> int:
        return len(self.signal)


def _tracks(event: Event) -> dict[str, NDArray[Any]]:
    """``TRACKS`` of a batch of jets."""
    kind, index = event.point["type"].numpy(), event.index("point").numpy()
    light = np.isin(kind, (ELECTRON, MUON))
    counts = [np.bincount(index[some], minlength=len(event)) for some in (light | (kind == CHARGED), light)]
    displaced = constituent_columns(event).point["signif_d0"].numpy()
    order = np.lexsort((-displaced, index))
    number = event.count["point"].numpy()
    place = np.arange(len(order)) - np.repeat(number.cumsum() - number, number)  # in its jet, most displaced first
    most = np.zeros((len(event), 4))
    kept = place < most.shape[1]
    most[index[order[kept]], place[kept]] = displaced[order[kept]]
    return dict(zip(TRACKS, (*counts, *most.T), strict=True))


@dataclass(frozen=True)
class Window:
    """A window in mass (GeV), and a ratio of ``RATIOS`` to be small in it."""

    low: float
    high: float
    ratio: str

    def score(self, jets: Features) -> Float:
        """Less is worse, and -inf outside the window."""
        mass = jets.columns["mass"]
        return np.where((mass >= self.low) & (mass <= self.high), -jets.ratio(self.ratio), -np.inf)


def best_window(jets: Features, efficiency: float, steps: int = 17) -> Window:
    """The window and ratio that keep the least background at this efficiency of signal, out of a grid of quantiles."""
    mass = jets.columns["mass"][jets.signal]
    lows = np.quantile(mass, np.linspace(0, 1 - efficiency, steps))
    highs = np.quantile(mass, np.linspace(efficiency, 1, steps))
    grid = [Window(low, high, ratio) for low in lows for high in highs for ratio in RATIOS]
    return max(grid, key=lambda window: rejection(window.score(jets), jets.signal, efficiency).value)


def cut_scores(train: Features, test: Features, efficiencies: Sequence[float] = (0.5, 0.3)) -> dict[float, Float]:
    """Efficiency -> scores of the test jets by the cuts that are best for it on the training jets."""
    return {efficiency: best_window(train, efficiency).score(test) for efficiency in efficiencies}


def tree_scores(train: Features, test: Features, seed: int, columns: Sequence[str] = SHAPES) -> Float:
    """Probability of signal by scikit-learn's histogram-based gradient boosting, which stops early by itself."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = (np.stack([jets.columns[name] for name in columns], axis=1) for jets in (train, test))
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=500, early_stopping=True, validation_fraction=0.2, random_state=seed
    )
    found: Float = trees.fit(x, train.signal).predict_proba(y)[:, 1]
    return found
