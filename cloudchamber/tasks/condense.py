"""Condensation: a space in which the points of each object gather, and what the objects are, from such a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cloudchamber.cluster import condense, density, follow
from cloudchamber.data.features import PAIR_INPUTS, direction_columns, edge_columns, hit_columns, layer_key
from cloudchamber.data.scale import Scale
from cloudchamber.data.towers import tower_columns
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.losses import condensation, influencer, payload
from cloudchamber.metrics import Fraction, Match, efficiency, purity
from cloudchamber.nn import SPACE, CloudNetwork, PointNetwork
from cloudchamber.ops import segment_argmax, segment_mean
from cloudchamber.sets import Sets, slots
from cloudchamber.tasks.graph import graph_stages
from cloudchamber.tasks.payload import Payload, column, of_points
from cloudchamber.tasks.task import Task
from cloudchamber.tasks.tracks import fitted_tracks, track_pairs


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
    core: int = 1
    object_hits: int = 3
    helix: bool = False


class Condense(Task):
    """Object condensation and the influencer loss: points to a learned space, and objects from it, whatever they are.

    With a perceptron for its model it sees point by point; with message passing along the edges of a graph of hits, or
    among ``model.neighbours`` nearest points in spaces of its own, for any points.
    """

    models = ("mlp", "message")
    output = "point.condensate"
    heads: ClassVar = ("network.head.", "payload.")

    def __init__(self, config: CondenseConfig, graph: nn.Module, model: Any) -> None:
        super().__init__()
        _check(config, model)
        self.config = config
        self.neighbours = getattr(model, "neighbours", 0)
        self.joined = model.kind == "message" and not self.neighbours
        self.graph = graph if self.joined else None
        read = tuple(dict.fromkeys((*config.columns, *config.start, *config.near)))
        self.columns: Mapping[str, Sequence[str]] = {"point": read} | ({"edge": PAIR_INPUTS} if self.joined else {})
        self.scale = Scale(len(config.columns))
        self.edge_scale = Scale(len(PAIR_INPUTS)) if self.joined else None
        self.beta = config.learn == "condensation"
        outputs = config.dimensions + 1 if self.beta else 2 * config.dimensions
        self.network: nn.Module
        sizes = (len(config.columns), outputs + len(config.payload), model)
        if model.kind == "mlp":
            self.network = PointNetwork(*sizes, categories=config.layered)
        else:
            edges = len(PAIR_INPUTS) if self.joined else None
            self.network = CloudNetwork(*sizes, edges, categories=config.layered, coordinates=len(config.near))
        self.payload = Payload(config.payload, config.ratio, config.offset)

    def fit(self, events: Sequence[Event]) -> None:
        """Learn the graph's windows, the scales of the inputs, and of the payload."""
        if self.graph is not None:
            self.graph.fit(events)  # type: ignore[operator]
        prepared = [self.prepare(event) for event in events[:4]]
        self.scale.fit(torch.cat([self._points(event) for event in prepared])[:, : len(self.config.columns)])
        if self.edge_scale is not None:
            self.edge_scale.fit(torch.cat([_stack(event, "edge", PAIR_INPUTS) for event in prepared]))
        self.payload.fit(prepared)

    def prepare(self, event: Event) -> Event:
        """Directions of the points, hits also with their errors, and edges where the network has a graph."""
        if self.graph is not None:
            event = edge_columns(self.graph(event))
        elif self.config.helix:
            event = hit_columns(event)
        if self.config.tower:
            event = tower_columns(event, self.config.tower)
        return direction_columns(event)

    def _points(self, event: Event) -> Tensor:
        return _stack(event, "point", self.columns["point"]).to(self.scale.mean)

    def _inputs(self, event: Event) -> dict[str, Tensor]:
        found = {"point": self._points(event)}
        if self.config.layered:
            found["layer"] = layer_key(event)
        if self.joined:
            found["edge"] = _stack(event, "edge", PAIR_INPUTS)
            found |= {name: event.edge[name] for name in ("sender", "receiver")}
        return found

    def arrays(self, event: Event) -> dict[str, Tensor]:
        """Points, the graph where there is one, and ``slot`` (scenes, length) where it looks for neighbours."""
        found = self._inputs(event)
        if self.neighbours:
            found["slot"] = slots(event.count["point"])
        return found

    def judge(self, *arrays: Tensor) -> Tensor:
        """Per point its beta and place, or both its places, then its payload, all scaled: ``(points, outputs)``."""
        if self.neighbours:
            return self._run(arrays[:-1], Sets.of_table(arrays[-1], arrays[0].shape[0]))
        return self._run(arrays, None)

    def _run(self, inputs: Sequence[Tensor], sets: Sets | None) -> Tensor:
        x, *rest = inputs
        category = rest.pop(0) if self.config.layered else None
        if self.edge_scale is not None:
            rest[0] = self.edge_scale(rest[0])
        more = {} if isinstance(self.network, PointNetwork) else {"sets": sets, "where": self._at(x, self.config.near)}
        found: Tensor = self.network(self.scale(x[:, : len(self.config.columns)]), category, *rest, **more)
        begin = self._at(x, self.config.start)
        if begin is None:
            return found
        begin = functional.pad(begin, (0, self.config.dimensions - begin.shape[1]))
        begin = functional.pad(begin, (1, 0)) if self.beta else torch.cat([begin, begin], dim=1)
        return found + functional.pad(begin, (0, found.shape[1] - begin.shape[1]))

    def _at(self, x: Tensor, columns: Sequence[str]) -> Tensor | None:
        """Some columns in multiples of ``unit``."""
        if not columns:
            return None
        return torch.stack([x[:, self.columns["point"].index(name)] for name in columns], dim=1) / self.config.unit

    def forward(self, event: Event) -> tuple[Tensor, Tensor, Tensor]:
        """Of a prepared event the logits of beta ``(points,)``, or the influencers ``(points, dimensions)``; places in
        the learned space ``(points, dimensions)``; payload ``(points, columns)``, scaled."""
        found = self.judge(*self.arrays(event).values())
        size, spread = self.config.dimensions, self.config.spread
        if self.beta:
            return found[:, 0], spread * found[:, 1 : size + 1], found[:, size + 1 :]
        return spread * found[:, size : 2 * size], spread * found[:, :size], found[:, 2 * size :]

    def loss(self, event: Event) -> dict[str, Tensor]:
        """The weighted parts of the loss."""
        first, space, values = self(event)
        config, object, index = self.config, event.point["object"], event.index("point")
        hits = torch.bincount(object[object >= 0], minlength=event.rows("object"))
        learned = torch.where((object >= 0) & (of_points(hits, object) >= config.min_hits), object, -1)
        common: dict[str, Any] = {"reach": config.reach, "neighbours": config.neighbours, "sample": config.sample}
        if self.beta:
            noise = object < 0
            parts = condensation(space, first, learned, index, noise=noise, charge=config.charge, **common)
        else:
            common |= {"margin": config.margin, "apart": config.apart, "joint": True}
            parts = influencer(space, first, learned, index, **common)
        if config.payload:
            error = functional.huber_loss(values, self.payload(event), reduction="none")
            parts["payload"] = payload(error, first if self.beta else torch.zeros_like(values[:, 0]), learned)
        weights = config.weights or (1.0,) * len(parts)
        return {name: weight * part for weight, (name, part) in zip(weights, parts.items(), strict=True)}

    def _objects(self, first: Tensor, space: Tensor) -> Tensor:
        """The object of each point of one event, or -1."""
        config, place = self.config, space.numpy()
        common: dict[str, Any] = {"radius": config.radius, "min_points": config.object_hits}
        if config.build != "own":
            label = density(place, method=config.build, core=config.core, **common)
        elif self.beta:
            beta = torch.sigmoid(first).numpy()
            common |= {"order": config.order, "seed": config.seed}
            label = condense(place, beta, threshold=config.threshold, take=config.take, **common)
        else:
            label = follow(place, first.numpy(), take=config.take, **common)
        return torch.from_numpy(label)

    def found(self, event: Event, outputs: Sequence[Tensor]) -> Event:
        """What ``decode`` makes of a prepared event, before any fit, from the ``outputs`` that ``forward`` gives."""
        outputs = [rows.detach().cpu() for rows in outputs]
        event, sizes = event.to("cpu"), event.count["point"].tolist()
        label, objects = [torch.zeros(0, dtype=torch.int64)], [0]
        for first, space in zip(*(torch.split(rows, sizes) for rows in outputs[:2]), strict=True):
            found = self._objects(first, space)
            label.append(torch.where(found >= 0, found + sum(objects), -1))
            objects.append(int(found.max()) + 1 if len(found) else 0)
        number, total = torch.cat(label), sum(objects)
        extra = self._payload(event, outputs[0], outputs[2], number, total)
        point = {"id": event.point.get("id", torch.arange(len(number))), "object": number}
        count = {level: event.count[level] for level in ("point", "scene")} | {"object": torch.tensor(objects[1:])}
        hits = torch.bincount(number[number >= 0], minlength=total)
        return Event(point=point, object={**extra, "hits": hits}, scene=event.scene, count=count)

    def decode(self, event: Event) -> Event:
        """``point.object``, and of the objects ``hits`` and the payload; also the helix where they are tracks.

        The payload is that of the point of largest beta, or the mean of the users.
        """
        found = self.found(event, self(event))
        if not self.config.helix:
            return found
        return fitted_tracks(event, found.point["object"], {name: found.object[name] for name in self.config.payload})

    def _payload(self, event: Event, first: Tensor, values: Tensor, number: Tensor, total: int) -> dict[str, Tensor]:
        own, values = torch.nonzero(number >= 0).squeeze(1), self.payload.absolute(event, values)
        if not self.beta:
            return self.payload.found(event, segment_mean(values[own], number[own], total), number)
        best = own[segment_argmax(first[own], number[own], total)]
        return self.payload.found(event, values[best], number)

    def propose(self, event: Event) -> Event:
        """The event with an edge between points that follow one another, outward from the origin, in an object."""
        found = self.decode(event)
        parts = zip(unbatch(event.to("cpu")), unbatch(found), strict=True)
        return batch([track_pairs(part, own) for part, own in parts]).to(event.count["point"].device)

    def score(self, event: Event) -> dict[str, Fraction]:
        """Efficiency and purity of the objects by double majority, of those with at least ``min_hits`` points."""
        found = self.found(event, self(event))
        event = event.to("cpu").with_columns("point", id=found.point["id"])
        match = Match.of(found, event)
        large = match.particle_hits >= self.config.min_hits
        return {"efficiency": efficiency(match, particles=large), "purity": purity(match)}

    def stages(self, event: Event) -> dict[str, Event]:
        """The edges after each stage of the graph, and those along the objects."""
        found = {} if self.graph is None else graph_stages(self.graph, event)
        with torch.no_grad():
            return {**found, self.config.stage: self.propose(self.prepare(event))}


def _check(config: CondenseConfig, model: Any) -> None:
    """Raise ``UserError`` for settings that do not fit together."""
    for name in ("ratio", "offset"):
        for found in getattr(config, name):
            if found not in config.payload:
                known = ", ".join(config.payload)
                raise UserError(f"task.{name}: expected some of task.payload, {known}, found {found!r}")
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


def _stack(event: Event, level: str, names: Sequence[str]) -> Tensor:
    return torch.stack([column(event, level, name).float() for name in names], dim=1)
