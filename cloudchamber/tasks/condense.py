"""Condensation: a space in which the points of each object gather, and what the objects are, from such a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cloudchamber.cluster import condense, density, follow
from cloudchamber.data.features import PAIR_INPUTS, direction_columns, edge_columns, hit_columns, layer_key
from cloudchamber.data.scale import Scale
from cloudchamber.data.towers import tower_columns
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.losses import condensation, influencer, payload
from cloudchamber.metrics import Fraction, Match, efficiency, purity
from cloudchamber.nn import CloudNetwork, PointNetwork
from cloudchamber.ops import segment_argmax, segment_mean
from cloudchamber.sets import Sets, slots
from cloudchamber.tasks.condense_config import CondenseConfig, check
from cloudchamber.tasks.edges import Edges
from cloudchamber.tasks.graph import graph_stages
from cloudchamber.tasks.payload import Payload, column, of_points
from cloudchamber.tasks.share import share
from cloudchamber.tasks.task import Task
from cloudchamber.tasks.tracks import EVIDENCE, GATHERED, evidence, fitted_tracks, gathering, track_pairs


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
        check(config, model)
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

    @property
    def evidence(self) -> Sequence[str]:
        """What is known of its tracks: that of the edges, too, where a task judged these; nothing of other objects."""
        judged = getattr(getattr(self.graph, "task", None), "output", "") == Edges.output
        return (*GATHERED, *(EVIDENCE if judged else ())) if self.config.helix else ()

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

    def _objects(self, first: Tensor, place: Tensor) -> Tensor:
        """The object of each point of one event, or -1."""
        config, space = self.config, place.numpy()
        common: dict[str, Any] = {"radius": config.radius, "min_points": config.object_hits}
        if config.build != "own":
            label = density(space, method=config.build, core=config.core, **common)
        elif self.beta:
            beta = torch.sigmoid(first).numpy()
            common |= {"order": config.order, "seed": config.seed}
            label = condense(space, beta, threshold=config.threshold, take=config.take, **common)
        else:
            label = follow(space, first.numpy(), take=config.take, **common)
        return torch.from_numpy(label)

    def found(self, event: Event, outputs: Sequence[Tensor]) -> Event:
        """What ``decode`` makes of a prepared event, before any fit, from the ``outputs`` that ``forward`` gives."""
        first, place, values = (rows.detach().cpu() for rows in outputs)
        event, sizes = event.to("cpu"), event.count["point"].tolist()
        values = self.payload.absolute(event, values)
        if self.config.join:
            joined = [self.config.payload.index(name) for name in self.config.join]
            place = torch.cat([place, values[:, joined] / self.config.unit], dim=1)
        label, objects = [torch.zeros(0, dtype=torch.int64)], [0]
        for one, own in zip(torch.split(first, sizes), torch.split(place, sizes), strict=True):
            found = self._objects(one, own)
            label.append(torch.where(found >= 0, found + sum(objects), -1))
            objects.append(int(found.max()) + 1 if len(found) else 0)
        number, total = torch.cat(label), sum(objects)
        number, extra = self._payload(event, first, place, values, number, total)
        point = {"id": event.point.get("id", torch.arange(len(number))), "object": number}
        count = {level: event.count[level] for level in ("point", "scene")} | {"object": torch.tensor(objects[1:])}
        hits = torch.bincount(number[number >= 0], minlength=total)
        return Event(point=point, object={**extra, "hits": hits}, scene=event.scene, count=count)

    def decode(self, event: Event) -> Event:
        """``point.object``, and of the objects ``hits`` and the payload; of tracks also the helix and ``evidence``.

        The payload is that of the point of largest beta, or the mean of the users.
        """
        outputs = self(event)
        found = self.found(event, outputs)
        if not self.config.helix:
            return found
        event, (first, space) = event.to("cpu"), (rows.detach().cpu() for rows in outputs[:2])
        track, total = found.point["object"], found.rows("object")
        extra = {name: found.object[name] for name in self.config.payload} | gathering(track, space, first, total)
        if set(EVIDENCE) <= set(self.evidence):
            edges = (event.edge[name].numpy() for name in ("sender", "receiver", "logit"))
            extra |= evidence(track.numpy(), *edges)
        return fitted_tracks(event, track, extra)

    def _payload(
        self, event: Event, first: Tensor, place: Tensor, values: Tensor, number: Tensor, total: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The object of each point, in the end, and the payload of the objects."""
        own = torch.nonzero(number >= 0).squeeze(1)
        if not self.beta:
            return number, self.payload.found(event, segment_mean(values[own], number[own], total), number)
        leader = own[segment_argmax(first[own], number[own], total)]
        found = self.payload.found(event, values[leader], number)
        if self.config.lateral:
            sharing = {"take": self.config.take, "lateral": self.config.lateral}
            number = share(event, place, leader, number, found, **sharing)
            found = self.payload.found(event, values[leader], number)
        return number, found

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


def _stack(event: Event, level: str, names: Sequence[str]) -> Tensor:
    return torch.stack([column(event, level, name).float() for name in names], dim=1)
