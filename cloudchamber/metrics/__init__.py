"""Scores of predictions against truth: an Event compared with an Event."""

from __future__ import annotations

from collections.abc import Callable

from cloudchamber.metrics.cluster import VScore, align, conditional_entropy, entropy, v_measure, v_score
from cloudchamber.metrics.curve import Measured, accuracy, auc, rejection, roc
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
    "Residuals",
    "Selection",
    "VScore",
    "Width",
    "accuracy",
    "align",
    "auc",
    "conditional_entropy",
    "duplicate_rate",
    "edge_efficiency_purity",
    "efficiency",
    "entropy",
    "fake_rate",
    "local_density",
    "matched",
    "purity",
    "rejection",
    "residuals",
    "roc",
    "split_widths",
    "trackml_score",
    "v_measure",
    "v_score",
]
