"""Edge classification: which pairs of points belong to one object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from cloudchamber.cluster import attach, components, link, walk
from cloudchamber.data.features import HIT_INPUTS, PAIR_INPUTS, edge_columns, label_edges, layer_key, true_pairs
from cloudchamber.data.scale import Scale
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.losses import binary_focal
from cloudchamber.metrics import Fraction
from cloudchamber.nn import EdgeNetwork, MessageConfig
from cloudchamber.tasks.graph import graph_stages
from cloudchamber.tasks.task import Task
from cloudchamber.tasks.tracks import JOINED, evidence, fitted_tracks


@dataclass(frozen=True, kw_only=True)
class EdgesConfig:
    """Settings of ``Edges``.

    ``stage``: its name in reports. ``keep``: probability above which an edge is handed on to a next stage.
    ``build``: tracks from edges by ``walk`` or ``components``. ``threshold``: probability from which an edge speaks for
    a track; paths are then joined end to end by edges of at least ``link``, and hits left over added by edges of at
    least ``attach``. ``track_hits``: a track joins at least so many. ``min_hits``: particles with fewer are not learned
    from.
    ``sample``: random edges per step that the loss is taken over, 0 for all (only without message passing).
    ``gamma``: focal exponent. ``recall``: weight of true edges beside false ones.
    """

    kind: Literal["edges"] = "edges"
    stage: str = "network"
    keep: float = 0.05
    build: Literal["walk", "components"] = "walk"
    threshold: float = 0.99
    link: float = 0.15
    attach: float = 0.2
    track_hits: int = 5
    min_hits: int = 3
    sample: int = 0
    gamma: float = 0.0
    recall: float = 1.0


class Edges(Task):
    """A network scores the edges of a graph; tracks are paths or components of what it keeps."""

    models = ("message",)
    output = "edge.logit"
    columns: Mapping[str, Sequence[str]] = {"point": HIT_INPUTS, "edge": PAIR_INPUTS}
    evidence: ClassVar = JOINED

    def __init__(self, config: EdgesConfig, graph: nn.Module, model: MessageConfig) -> None:
        super().__init__()
        if config.sample and model.depth:
            raise UserError("task.sample: a sample of edges is no graph to pass messages on: expected model.depth = 0")
        self.config = config
        self.graph = graph
        self.point_scale = Scale(len(HIT_INPUTS))
        self.edge_scale = Scale(len(PAIR_INPUTS))
        self.network = EdgeNetwork(len(HIT_INPUTS), len(PAIR_INPUTS), model)

    def fit(self, events: Sequence[Event]) -> None:
        """Learn the graph's windows and the scales of the inputs."""
        self.graph.fit(events)  # type: ignore[operator]
        prepared = [self.prepare(event) for event in events[:4]]
        self.point_scale.fit(torch.cat([_inputs(event, "point", HIT_INPUTS) for event in prepared]))
        self.edge_scale.fit(torch.cat([_inputs(event, "edge", PAIR_INPUTS) for event in prepared]))

    def prepare(self, event: Event) -> Event:
        """Candidate edges with their inputs, and targets where truth is there."""
        return self._describe(self.graph(event))

    def _describe(self, event: Event) -> Event:
        event = edge_columns(event)
        return label_edges(event) if "object" in event.point else event

    def arrays(self, event: Event, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Points, and all edges or some rows of them."""
        edge = event.edge if rows is None else {name: column[rows] for name, column in event.edge.items()}
        return {
            "point": _inputs(event, "point", HIT_INPUTS),
            "layer": layer_key(event),
            "edge": torch.stack([edge[name] for name in PAIR_INPUTS], dim=1),
            "sender": edge["sender"],
            "receiver": edge["receiver"],
        }

    def judge(self, *arrays: Tensor) -> Tensor:
        """Logits of the edges."""
        point, layer, edge, sender, receiver = arrays
        logits: Tensor = self.network(self.point_scale(point), layer, edge, sender, receiver, self.edge_scale)
        return logits

    def forward(self, event: Event, rows: Tensor | None = None) -> Tensor:
        """Logits of the edges, or of some rows of them, of a prepared event."""
        return self.judge(*self.arrays(event, rows).values())

    def loss(self, event: Event) -> dict[str, Tensor]:
        """Focal loss over edges; pairs of particles with too few hits count neither as true nor as false."""
        edges, rows = event.rows("edge"), None
        if 0 < self.config.sample < edges:
            rows = torch.randint(edges, (self.config.sample,)).to(event.edge["sender"].device)
        logit = self(event, rows)
        hits = event.edge["hits"] if rows is None else event.edge["hits"][rows]
        true = hits >= self.config.min_hits
        weight = torch.where(true, self.config.recall, torch.where(hits > 0, 0.0, 1.0))
        return {"edges": binary_focal(logit, true, weight, self.config.gamma)}

    def propose(self, event: Event) -> Event:
        """The edges with a probability of at least ``keep``, with column ``logit``."""
        logit = self(event)
        kept = torch.sigmoid(logit) >= self.config.keep
        columns = {name: event.edge[name][kept] for name in ("sender", "receiver")}
        number = event.index("edge")[kept]
        count = torch.bincount(number, minlength=len(event))
        return event.with_level("edge", {**columns, "logit": logit[kept]}, count)

    def decode(self, event: Event) -> Event:
        """Tracks with their helix parameters; ``point.object`` is the row of the track, -1 for no track."""
        logit = self(event).detach().double().cpu().numpy()
        sender, receiver = event.edge["sender"].cpu().numpy(), event.edge["receiver"].cpu().numpy()
        settings = self.config
        if settings.build == "components":
            kept = logit > _logit(settings.threshold)
            label = components(sender[kept], receiver[kept], event.rows("point"), min_points=settings.track_hits)
        else:
            distance = (event.point["radius"].double() ** 2 + event.point["z"].double() ** 2).cpu().numpy()
            label = walk(sender, receiver, logit - _logit(settings.threshold), distance)
            gain = logit - _logit(settings.link)
            label = link(label, sender, receiver, gain, distance, min_points=settings.track_hits)
            label = attach(label, sender, receiver, logit - _logit(settings.attach))
        return fitted_tracks(event, torch.from_numpy(label), evidence(label, sender, receiver, logit))

    def score(self, event: Event) -> dict[str, Fraction]:
        """Efficiency and purity of the proposed edges."""
        return pair_rates(self.propose(event), self.config.min_hits)

    def stages(self, event: Event) -> dict[str, Event]:
        """The edges after each stage of the graph, and after this one."""
        found = graph_stages(self.graph, event)
        with torch.no_grad():
            return {**found, self.config.stage: self.propose(self._describe(list(found.values())[-1]))}


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _inputs(event: Event, level: str, names: Sequence[str]) -> Tensor:
    columns = getattr(event, level)
    return torch.stack([columns[name] for name in names], dim=1)


def pair_rates(event: Event, min_hits: int) -> dict[str, Fraction]:
    """Efficiency and purity of the edges of an event, against the pairs of hits that follow one another on a track.

    A true edge that is not between consecutive hits of its particle counts as right for the purity.
    """
    event = event.to("cpu")
    labelled = label_edges(event)
    inner, outer = true_pairs(event)
    hits = torch.bincount(event.point["object"] + 1, minlength=1)
    wanted = hits[event.point["object"][inner] + 1] >= min_hits
    points = event.rows("point")
    present = torch.isin(inner * points + outer, event.edge["sender"] * points + event.edge["receiver"])
    true = labelled.edge["hits"] > 0
    return {
        "efficiency": Fraction.of((present & wanted)[wanted].numpy()),
        "purity": Fraction.of(true.numpy()),
    }
