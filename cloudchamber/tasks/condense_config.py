"""Settings of condensation, and which of them fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cloudchamber.errors import UserError
from cloudchamber.nn import SPACE
from cloudchamber.tasks.share import NEEDS


@dataclass(frozen=True, kw_only=True)
class CondenseConfig:
    """Settings of ``Condense``.

    ``stage``: its name in reports. ``learn``: the loss, see ``losses``. ``columns``: of the points that the network is
    given, also ``radius``, ``cos_phi``, ``sin_phi`` and ``eta`` where points have x, y and z; ``layered``: points have
    ``volume`` and ``layer``, too; ``tower``: how far (mm) the towers reach of the columns ``tower``, ``around`` and
    ``peak``, see ``data.towers``. ``payload``, ``ratio`` and ``offset``: columns of the objects that are predicted, see
    ``Payload``.

    Points lie in a space of so many ``dimensions``, at ``spread`` times the sum of what the network gives and of the
    columns ``start`` in multiples of ``unit``, where they begin. A network with ``model.neighbours`` begins to look for
    them in the columns ``near``, in multiples of ``unit`` as well. Of both it need not be told: without x and y in
    ``columns`` it does not know where a point is, only where others are from there, and moving all points moves what it
    finds.

    Condensation repels to a distance of 1. ``charge``, ``reach``, ``neighbours``, ``sample``: see
    ``losses.condensation``; ``margin`` and ``apart``: see ``losses.influencer``. ``weights``: of the parts of the loss,
    by their order there, then that of the payload. Objects of fewer than ``min_hits`` points are not learned.

    ``build``: ``own`` is greedy condensation from a beta of ``threshold`` on, in ``order`` (a random one: of the
    generator ``seed``), or followers of influencers; each point in the end with the nearest of those that made an
    object within ``take``, if that is not 0. Else a clustering by density with ``core`` points. All use ``radius``.
    ``join``: columns of the payload that the learned space gets there as further dimensions, in multiples of ``unit``.
    ``lateral``: the points of showers then go to the one that is expected to leave most in them, see ``share``.
    ``object_hits``: an object joins at least so many points. ``helix``: objects are tracks, and fitted.
    """

    kind: Literal["condense"] = "condense"
    stage: str = "condensation"
    learn: Literal["condensation", "influencer"] = "condensation"
    columns: tuple[str, ...] = ("x", "y", "z")
    layered: bool = False
    tower: float = 0.0
    payload: tuple[str, ...] = ()
    ratio: tuple[str, ...] = ()
    offset: tuple[str, ...] = ()
    dimensions: int = 3
    spread: float = 1.0
    start: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    unit: float = 1.0
    charge: float = 0.1
    reach: float = 10.0
    neighbours: int = 100
    sample: int = 0
    margin: float = 1.0
    apart: float = 1.0
    weights: tuple[float, ...] = ()
    min_hits: int = 3
    build: Literal["own", "dbscan", "hdbscan"] = "own"
    threshold: float = 0.3
    order: Literal["beta", "random"] = "beta"
    seed: int = 0
    radius: float = 0.5
    take: float = 0.0
    join: tuple[str, ...] = ()
    lateral: float = 0.0
    core: int = 1
    object_hits: int = 3
    helix: bool = False


def check(config: CondenseConfig, model: Any) -> None:
    """Raise ``UserError`` for settings that do not fit together."""
    for name in ("ratio", "offset", "join"):
        for found in getattr(config, name):
            if found not in config.payload:
                known = ", ".join(config.payload)
                raise UserError(f"task.{name}: expected some of task.payload, {known}, found {found!r}")
    if (config.join or config.lateral) and config.learn != "condensation":
        raise UserError('task.join, task.lateral: expected task.learn = "condensation"')
    if set(config.join) & set(config.ratio):
        raise UserError("task.join: expected columns that are not in task.ratio")
    if not config.lateral >= 0:
        raise UserError(f"task.lateral: expected 0, or a distance in mm, found {config.lateral}")
    missing = [name for name in NEEDS if name not in config.payload]
    if config.lateral and (missing or not config.take):
        raise UserError(f"task.lateral: expected {', '.join(NEEDS)} in task.payload, and task.take above 0")
    if not config.columns:
        raise UserError("task.columns: expected at least one column of the points")
    if len(config.start) > config.dimensions:
        raise UserError(f"task.start: expected at most task.dimensions = {config.dimensions} columns")
    if len(config.near) > SPACE:
        raise UserError(f"task.near: expected at most {SPACE} columns")
    if config.take and config.take < config.radius:
        raise UserError(f"task.take: expected 0, or at least task.radius = {config.radius}, found {config.take}")
    if not config.tower >= 0:
        raise UserError(f"task.tower: expected 0, or a distance in mm, found {config.tower}")
    if not config.unit > 0:
        raise UserError(f"task.unit: expected a number above 0, found {config.unit}")
    parts = (4 if config.learn == "condensation" else 3) + bool(config.payload)
    if config.weights and len(config.weights) != parts:
        raise UserError(
            f"task.weights: expected {parts} numbers, one per part of the loss, found {len(config.weights)}"
        )
    if model.kind == "message" and not (model.edges and model.depth):
        raise UserError(
            "model: a task of kind 'condense' needs edges = true and depth of at least 1, or kind = \"mlp\""
        )
