"""Scores of predictions against truth: an Event compared with an Event."""

from __future__ import annotations

from collections.abc import Callable

from cloudchamber.metrics.calibration import (
    Reliability,
    Sculpting,
    binned_rejection,
    jensen_shannon,
    reliability,
    sculpting,
)
from cloudchamber.metrics.cluster import VScore, align, conditional_entropy, entropy, v_measure, v_score
from cloudchamber.metrics.curve import Measured, accuracy, auc, rejection, roc, threshold
from cloudchamber.metrics.density import local_density
from cloudchamber.metrics.fraction import Fraction, edge_efficiency_purity
from cloudchamber.metrics.match import (
    STYLES,
    Match,
    Selection,
    duplicate_rate,
    efficiency,
    fake_rate,
    matched,
    purity,
    trackml_score,
)
from cloudchamber.metrics.resolution import PARAMETERS, Residuals, Width, residuals, split_widths
from cloudchamber.metrics.showers import Showers

#: Rates of tracks by name: each takes a Match and a style of STYLES, and returns a Fraction.
METRICS: dict[str, Callable[..., Fraction]] = {
    "efficiency": efficiency,
    "purity": purity,
    "fake_rate": fake_rate,
    "duplicate_rate": duplicate_rate,
}

__all__ = [
    "METRICS",
    "PARAMETERS",
    "STYLES",
    "Fraction",
    "Match",
    "Measured",
    "Reliability",
    "Residuals",
    "Sculpting",
    "Selection",
    "Showers",
    "VScore",
    "Width",
    "accuracy",
    "align",
    "auc",
    "binned_rejection",
    "conditional_entropy",
    "duplicate_rate",
    "edge_efficiency_purity",
    "efficiency",
    "entropy",
    "fake_rate",
    "jensen_shannon",
    "local_density",
    "matched",
    "purity",
    "rejection",
    "reliability",
    "residuals",
    "roc",
    "sculpting",
    "split_widths",
    "threshold",
    "trackml_score",
    "v_measure",
    "v_score",
]
