"""Metric learning: a space in which points that belong together lie together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cloudchamber.data.features import hit_columns, layer_key, true_pairs
from cloudchamber.data.scale import Scale
from cloudchamber.event import Event
from cloudchamber.losses import contrastive_hinge
from cloudchamber.metrics import Fraction
from cloudchamber.nn import MLPConfig, PointNetwork
from cloudchamber.ops import fixed_radius, gather
from cloudchamber.tasks.edges import pair_rates
from cloudchamber.tasks.task import Task
from cloudchamber.tasks.tracks import fitted_tracks

INPUTS = ("x", "y", "z", "radius")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Settings of ``Embed``.

    ``stage``: its name in reports. ``dimensions`` of the space. ``radius``: points within it become edges, at most
    ``neighbours`` each. ``margin``: distance beyond which pairs of different objects are left alone.
    ``min_hits``: particles with fewer hits are not learned from. ``sample``: points per step whose neighbours are used.
    """

    kind: Literal["embed"] = "embed"
    stage: str = "embedding"
    dimensions: int = 8
    radius: float = 0.1
    neighbours: int = 30
    margin: float = 0.1
    min_hits: int = 3
    sample: int = 20_000


class Embed(Task):
    """Hits that follow one another on a track are drawn together, near ones of other particles are pushed away.

    Edges are the neighbours within a radius of the learned space (Choma et al., arXiv:2007.00149).
    """

    models = ("mlp",)
    output = "point.space"
    columns: Mapping[str, Sequence[str]] = {"point": INPUTS}

    def __init__(self, config: EmbedConfig, graph: nn.Module | None, model: MLPConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = Scale(len(INPUTS))
        self.network = PointNetwork(len(INPUTS), config.dimensions, model)

    def fit(self, events: Sequence[Event]) -> None:
        """Learn the scale of the inputs."""
        self.scale.fit(torch.cat([self._inputs(self.prepare(event)) for event in events[:4]]))

    def prepare(self, event: Event) -> Event:
        """Hits in cylindrical coordinates."""
        return hit_columns(event)

    def _inputs(self, event: Event) -> Tensor:
        return torch.stack([event.point[name] for name in INPUTS], dim=1)

    def arrays(self, event: Event) -> dict[str, Tensor]:
        """Points."""
        return {"point": self._inputs(event), "layer": layer_key(event)}

    def judge(self, *arrays: Tensor) -> Tensor:
        """Coordinates in the learned space, shape ``(points, dimensions)``.

        The network moves points from where they start, at the direction from the origin: (cos phi, sin phi, eta).
        """
        point, layer = arrays
        out: Tensor = self.network(self.scale(point), layer)
        x, y, z, radius = point.clamp(-1e6, 1e6).unbind(1)
        radius = radius.clamp(min=1.0)
        start = torch.stack([x / radius, y / radius, torch.asinh(z / radius)], dim=1)
        return out + functional.pad(start, (0, self.config.dimensions - 3))

    def forward(self, event: Event) -> Tensor:
        """Coordinates in the learned space, of a prepared event."""
        return self.judge(*self.arrays(event).values())

    def loss(self, event: Event) -> dict[str, Tensor]:
        """Hinge loss over true pairs, near pairs (the hard ones) and random pairs."""
        space = self(event)
        points, device = len(space), space.device
        inner, outer = (rows.to(device) for rows in true_pairs(event.to("cpu")))
        chosen = torch.randperm(points)[: self.config.sample]
        point, near = fixed_radius(space, self.config.margin, self.config.neighbours, event.index("point"), chosen)
        other = torch.randint(max(points, 1), (len(chosen),))
        first = torch.cat([inner, point.to(device), chosen.to(device)])
        second = torch.cat([outer, near.to(device), other.to(device)])
        particle = event.point["object"]
        hits = torch.bincount(particle + 1, minlength=1)[particle + 1]
        same = torch.zeros(len(first), dtype=torch.bool, device=device)
        same[: len(inner)] = True
        alike = (particle[first] == particle[second]) & (particle[first] >= 0)
        weight = torch.where(same, hits[first] >= self.config.min_hits, ~alike).to(space)
        distance = (gather(space, first) - gather(space, second)).square().sum(1).add(1e-12).sqrt()
        return {"hinge": contrastive_hinge(distance, same, self.config.margin, weight)}

    def propose(self, event: Event) -> Event:
        """The event with an edge between points within the radius, pointing away from the origin."""
        space = self(event).detach()
        point, near = fixed_radius(space, self.config.radius, self.config.neighbours, event.index("point"))
        away = event.point["radius"].double() ** 2 + event.point["z"].double() ** 2
        point, near = point.to(space.device), near.to(space.device)
        swap = (away[point] > away[near]) | ((away[point] == away[near]) & (point > near))
        points = len(space)
        key = torch.unique(torch.where(swap, near, point) * points + torch.where(swap, point, near))
        sender, receiver = key // max(points, 1), key % max(points, 1)
        count = torch.bincount(event.index("point")[sender], minlength=len(event))
        return event.with_level("edge", {"sender": sender, "receiver": receiver}, count)

    def decode(self, event: Event) -> Event:
        """Points by themselves are no objects: every point is left unassigned."""
        return fitted_tracks(event, torch.full_like(event.point["id"], -1))

    def score(self, event: Event) -> dict[str, Fraction]:
        """Efficiency and purity of the neighbours as edges."""
        return pair_rates(self.propose(event), self.config.min_hits)

    def stages(self, event: Event) -> dict[str, Event]:
        """The neighbours."""
        with torch.no_grad():
            return {self.config.stage: self.propose(self.prepare(event))}
