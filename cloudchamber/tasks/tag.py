"""Tagging: what a whole event is, such as the particle that a jet comes from, and numbers that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cloudchamber.data.constituents import DISPLACED, ENCODINGS, KINEMATIC, MOMENTUM, OPTIONAL, constituent_columns
from cloudchamber.data.neighbours import Neighbours
from cloudchamber.data.scale import Scale
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch
from cloudchamber.losses import binary_focal, cross_entropy
from cloudchamber.metrics import Fraction
from cloudchamber.nn import Cloud, PairMLP, Pooling, SceneNetwork, needs
from cloudchamber.ops import connected_components
from cloudchamber.sets import Sets, complete, slots
from cloudchamber.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class TagConfig:
    """Settings of ``Tag``.

    ``stage``: its name in reports. ``classes``: names of what ``scene.label`` numbers. ``regress``: columns of
    ``scene`` to be predicted. ``columns``: what the network is told of a point: of ``KINEMATIC``, of ``OPTIONAL`` and
    ``DISPLACED`` where the data have them, and of ``ENCODINGS`` where there is a graph. ``pool``: how points become one
    row; ``pool_depth``: layers of attention pooling. ``weight``: ``pt`` multiplies each point by its fraction of the pT
    before the sum. ``head``: hidden layers after the pooling. ``origin``: weight in the loss of the class of each
    point, ``point.origin``, of which there are ``origins``. ``vertex``: weight of whether two points come from one
    vertex, ``point.vertex``, asked of ``pairs`` random partners of each point. -1 is unknown in all targets.
    """

    kind: Literal["tag"] = "tag"
    stage: str = "tagger"
    classes: tuple[str, ...] = ("qcd", "top")
    regress: tuple[str, ...] = ()
    columns: tuple[str, ...] = tuple(KINEMATIC)
    pool: Pooling = "sum"
    pool_depth: int = 1
    weight: Literal["none", "pt"] = "none"
    head: int = 1
    origin: float = 0.0
    origins: int = 4
    vertex: float = 0.0
    pairs: int = 4


class Tag(Task):
    """A class and numbers for each event, from its points; on request also a class for each point, and vertices."""

    models = ("mlp", "message", "attention", "lorentz")
    graphs = ("neighbours",)
    output = "scene.logit"
    columns: Mapping[str, Sequence[str]] = {
        "point": (*KINEMATIC, *OPTIONAL, *DISPLACED, *ENCODINGS),
        "polar": ("pt", "deta", "dphi"),
        "momentum": MOMENTUM,
    }
    packed: ClassVar = True
    heads: ClassVar = ("network.head.", "origin_head.", "vertex_head.", "middle", "width")
    middle: Tensor
    width: Tensor

    def __init__(self, config: TagConfig, graph: nn.Module, model: Any) -> None:
        super().__init__()
        _check(config, graph, model)
        self.config, self.graph = config, graph
        self.neighbours = getattr(model, "neighbours", 0)  # that a network looks for by itself
        self.joined = model.kind == "message" and model.depth > 0 and not model.neighbours
        names = [name for name in config.columns if name != "type"]
        typed = "type" in config.columns
        self.columns = {**Tag.columns, "point": (*names, *(["type"] if typed else []))}
        wanted = needs(model) | ({"polar"} if config.weight == "pt" else set())
        self.needs = [name for name in ("polar", "momentum") if name in wanted]
        self.scale = Scale(len(names))
        inputs, outputs = len(self.columns["point"]), len(config.classes) + len(config.regress)
        self.network = SceneNetwork(
            inputs, outputs, model, config.pool, head=config.head, pool_depth=config.pool_depth, categories=typed
        )
        self.origin_head = nn.Linear(model.width, config.origins) if config.origin else None
        self.vertex_head = PairMLP(model.width, 1, 1, edge=False) if config.vertex else None
        self.register_buffer("middle", torch.zeros(len(config.regress)))
        self.register_buffer("width", torch.ones(len(config.regress)))

    def fit(self, events: Sequence[Event]) -> None:
        """Learn the scale of the inputs, and of the numbers to be predicted."""
        event = self.prepare(batch(events))
        self.scale.fit(self._points(event)[:, : len(self.scale.mean)])
        for number, name in enumerate(self.config.regress):
            values = _column(event, "scene", name).double()
            self.middle[number] = values.mean()
            self.width[number] = values.std(correction=0).clamp(min=1e-6)

    def prepare(self, event: Event) -> Event:
        """Constituents relative to their jet, and the graph. Raises ``UserError`` for a label that has no class."""
        label, classes = event.scene.get("label"), len(self.config.classes)
        if classes and label is not None and len(label) and not -1 <= int(label.min()) <= int(label.max()) < classes:
            raise UserError(f"scene.label: expected -1 to {classes - 1} (task.classes), found {int(label.max())}")
        found: Event = self.graph(constituent_columns(event))
        return found

    def _points(self, event: Event) -> Tensor:
        """Features of the points, ``(points, columns)``."""
        columns = [_column(event, "point", name).to(self.scale.mean) for name in self.columns["point"]]
        return torch.stack(columns, dim=1) if columns else self.scale.mean.new_zeros((event.rows("point"), 0))

    def _inputs(self, event: Event) -> dict[str, Tensor]:
        found = {"point": self._points(event)} if self.columns["point"] else {}
        for name in self.needs:
            columns = [_column(event, "point", column) for column in self.columns[name]]
            rows = torch.stack(columns, dim=1)
            found[name] = rows.double() if name == "momentum" else rows.to(self.scale.mean)
        if self.joined:
            found |= {name: event.edge[name] for name in ("sender", "receiver")}
        return found

    def arrays(self, event: Event) -> dict[str, Tensor]:
        """Points, what else the network needs of them, and ``slot`` (scenes, length): the points of each event."""
        return {**self._inputs(event), "slot": slots(event.count["point"])}

    def judge(self, *arrays: Tensor) -> Tensor:
        """Logits of the classes and scaled numbers, shape ``(scenes, outputs)``, of the sets that ``slot`` tells."""
        *inputs, slot = arrays
        return self._run(inputs, Sets.of_table(slot, inputs[0].shape[0]))[0]

    def _run(self, inputs: Sequence[Tensor], sets: Sets) -> tuple[Tensor, Tensor]:
        names = ["point"] if self.columns["point"] else []
        names += [*self.needs, *(["sender", "receiver"] if self.joined else [])]
        given = dict(zip(names, inputs, strict=True))
        x, scaled = given.pop("point", self.scale.mean.new_zeros((inputs[0].shape[0], 0))), len(self.scale.mean)
        x = torch.cat([self.scale(x[:, :scaled]), x[:, scaled:]], dim=1)
        weight = None
        if self.config.weight == "pt":
            pt = given["polar"][:, 0]
            weight = pt / sets.sum(pt.unsqueeze(1)).squeeze(1)[sets.index].clamp(min=1e-7)
        found: tuple[Tensor, Tensor] = self.network(x, Cloud(sets, **given), weight)
        return found

    def forward(self, event: Event) -> tuple[Tensor, Tensor]:
        """Outputs ``(scenes, outputs)`` and points ``(points, width)`` of a prepared event."""
        return self._run(list(self._inputs(event).values()), Sets.of(event.count["point"]))

    def loss(self, event: Event) -> dict[str, Tensor]:
        """Cross-entropy of the classes, Huber loss of the scaled numbers, and the parts that have a weight."""
        outputs, points = self(event)
        classes, parts = len(self.config.classes), {}
        if classes:
            parts["classes"] = cross_entropy(outputs[:, :classes], _column(event, "scene", "label"))
        if self.config.regress:
            target = torch.stack([_column(event, "scene", name).float() for name in self.config.regress], dim=1)
            parts["numbers"] = functional.huber_loss(outputs[:, classes:], (target - self.middle) / self.width)
        if self.origin_head is not None:
            logit = self.origin_head(points)
            parts["origin"] = self.config.origin * cross_entropy(logit, _column(event, "point", "origin"))
        if self.vertex_head is not None:
            one, other = self._partners(event)
            same, known = _same_vertex(event, one, other)
            parts["vertex"] = self.config.vertex * binary_focal(self._together(points, one, other), same, known)
        return parts

    def _partners(self, event: Event) -> tuple[Tensor, Tensor]:
        """Each point ``pairs`` times, and a random other point of its event; events of one point have none."""
        count, index = event.count["point"], event.index("point")
        one = torch.arange(len(index), device=index.device)[count[index] > 1].repeat(self.config.pairs)
        size, first = count[index[one]], (count.cumsum(0) - count)[index[one]]
        step = 1 + (torch.rand(len(one), device=one.device) * (size - 1)).long().clamp(max=size - 2)
        return one, first + (one - first + step) % size

    def _together(self, points: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Logits of pairs ``(pairs,)`` to come from one vertex, the same in both directions."""
        judge = self.vertex_head
        assert judge is not None
        logit: Tensor = judge(points, None, one, other) + judge(points, None, other, one)
        return logit.squeeze(1)

    def _vertices(self, points: Tensor, event: Event) -> Tensor:
        """The number of the vertex of each point, in the order of the first points of the vertices."""
        one, other = complete(Sets.of(event.count["point"]))
        joined = self._together(points, one, other) > 0
        _, label = connected_components(one[joined].cpu().numpy(), other[joined].cpu().numpy(), len(points))
        _, first, number = np.unique(label, return_index=True, return_inverse=True)
        rank = torch.from_numpy(np.argsort(np.argsort(first))[number]).to(points.device)
        start = event.count["point"].cumsum(0) - event.count["point"]
        return rank - rank[start[event.index("point")]]

    def named(self, outputs: Tensor) -> dict[str, Tensor]:
        """The probability of each class, ``p_CLASS``, and the numbers, ``(scenes,)`` each, of what ``judge`` gives."""
        classes = len(self.config.classes)
        probability, numbers = outputs[:, :classes].softmax(1), outputs[:, classes:] * self.width + self.middle
        found = {f"p_{name}": column for name, column in zip(self.config.classes, probability.T, strict=True)}
        return found | dict(zip(self.config.regress, numbers.T, strict=True))

    def propose(self, event: Event) -> Event:
        """There are no edges to hand on."""
        raise UserError("graph.weights: a task of kind 'tag' ends a pipeline: nothing can be built on it")

    def decode(self, event: Event) -> Event:
        """Per event the probability of each class, ``scene.p_CLASS``, and the numbers; per point origin and vertex.

        Points are of one vertex where pairs that are more likely of one than not join them. Vertices of an event count
        from 0.
        """
        outputs, points = (rows.detach() for rows in self(event))
        scene = {name: event.scene[name] for name in ("id",) if name in event.scene} | self.named(outputs)
        point = {} if self.origin_head is None else {"origin": self.origin_head(points).detach().argmax(1)}
        if self.vertex_head is not None:
            point["vertex"] = self._vertices(points, event)
        count = {level: event.count[level] for level in ("point", "scene")}
        count["scene"] = torch.ones_like(count["scene"])  # also where an event came without columns
        return Event(point=point, scene=scene, count=count).to("cpu")

    def score(self, event: Event) -> dict[str, Fraction]:
        """Of the events with a label those with the right class; of points those with the right origin; of pairs of
        points those rightly joined or not."""
        outputs, points = self(event)
        classes, found = len(self.config.classes), {}
        if classes:
            found["accuracy"] = _right(outputs[:, :classes].argmax(1), event.scene["label"])
        if self.origin_head is not None:
            found["origin"] = _right(self.origin_head(points).argmax(1), event.point["origin"])
        if self.vertex_head is not None:
            one, other = self._partners(event)
            same, known = _same_vertex(event, one, other)
            joined = (self._together(points, one, other) > 0).long()
            found["vertex"] = _right(joined, torch.where(known > 0, same.long(), -1))
        return found

    def stages(self, event: Event) -> dict[str, Event]:
        """The graph of the points."""
        return {self.config.stage: self.prepare(event)}


def _check(config: TagConfig, graph: nn.Module, model: Any) -> None:
    """Raise ``UserError`` for settings that do not fit together."""
    for name in config.columns:
        if name not in Tag.columns["point"]:
            raise UserError(f"task.columns: expected some of {', '.join(Tag.columns['point'])}, found {name!r}")
    if not config.classes and not config.regress:
        raise UserError("task.classes: expected classes, or columns to regress")
    if config.weight == "pt" and config.pool != "sum":
        raise UserError(f"task.weight: 'pt' is for task.pool = 'sum', found {config.pool!r}")
    if not isinstance(graph, Neighbours):
        raise UserError("graph.kind: a task of kind 'tag' needs 'neighbours'")
    placed = any(name in ENCODINGS for name in config.columns)
    wants = placed or (model.kind == "message" and model.depth > 0 and not model.neighbours)
    if placed and not graph.config.places:
        raise UserError(f"graph.places: expected true: task.columns has some of {', '.join(ENCODINGS)}")
    if wants != (graph.config.join != "none"):
        how = "needs a graph: graph.join, or model.neighbours" if wants else "does not look at graph.join"
        raise UserError(f"graph.join: this model {how}")


def _column(event: Event, level: str, name: str) -> Tensor:
    columns = getattr(event, level)
    if name in columns:
        column: Tensor = columns[name]
        return column
    if event.rows(level) or (level == "scene" and len(event)):
        raise UserError(f"{level}.{name}: missing in the events")
    return torch.zeros(0, dtype=torch.int64 if name in ("label", "origin", "vertex") else torch.float32)


def _same_vertex(event: Event, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Whether pairs come from one vertex, and whether that is known (1.0 or 0.0)."""
    vertex = _column(event, "point", "vertex")
    first, second = vertex[one], vertex[other]
    return first == second, ((first >= 0) & (second >= 0)).float()


def _right(found: Tensor, target: Tensor) -> Fraction:
    return Fraction.of((found == target)[target >= 0].cpu().numpy())
