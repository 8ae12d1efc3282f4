"""What a tagger has to beat: cuts on the mass of a jet and its N-subjettiness, and boosted trees on such numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloudchamber.data.constituents import MOMENTUM
from cloudchamber.event import Event
from cloudchamber.metrics import rejection
from cloudchamber.physics import n_subjettiness

Float = NDArray[np.float64]
CUTS, TREES = "cuts", "trees"
#: What the cuts may be on, beside the mass: N-subjettiness N over N - 1.
RATIOS = {"tau32": ("tau3", "tau2"), "tau21": ("tau2", "tau1")}


@dataclass(frozen=True)
class Features:
    """Numbers of jets, ``(jets,)`` each: ``mass`` (GeV), ``multiplicity``, ``tau1`` to ``tau3``; which are signal."""

    columns: Mapping[str, Float]
    signal: NDArray[np.bool_]

    @classmethod
    def of(cls, event: Event) -> Features:
        """Of a batch of jets."""
        momentum = np.stack([event.point[name].numpy() for name in MOMENTUM], axis=1)
        tau = n_subjettiness(momentum, event.count["point"].numpy())
        columns = {"mass": event.scene["mass"].numpy(), "multiplicity": event.count["point"].numpy()}
        columns |= {f"tau{n}": column for n, column in enumerate(tau.T, start=1)}
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


def tree_scores(train: Features, test: Features, seed: int) -> Float:
    """Probability of signal by scikit-learn's histogram-based gradient boosting, which stops early by itself."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = (np.stack(list(jets.columns.values()), axis=1) for jets in (train, test))
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=500, early_stopping=True, validation_fraction=0.2, random_state=seed
    )
    found: Float = trees.fit(x, train.signal).predict_proba(y)[:, 1]
    return found
