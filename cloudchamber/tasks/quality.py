"""Track quality: the probability that a track that was found is a particle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cloudchamber.data.scale import Scale
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.losses import binary_focal
from cloudchamber.metrics import Fraction, Match, matched
from cloudchamber.nn import MLP, MLPConfig
from cloudchamber.tasks.task import Task
from cloudchamber.tasks.tracks import track_pairs

UNFITTED = 1e4  # stands for what is not a number


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Settings of ``Quality``.

    ``stage``: the name in reports of the tracks that a task before it found. ``threshold``: probability from which one
    is kept. ``compress``: the network is given log(1 + |x|) of its inputs, which tames those with long tails.
    """

    kind: Literal["quality"] = "quality"
    stage: str = "found tracks"
    threshold: float = 0.8
    compress: bool = False


class Quality(Task):
    """Judges the tracks of a finder by what it knows of them, and drops the doubtful.

    The finder is a graph with ``find``, which gives tracks, and ``evidence``, the columns that they are judged by: one
    of kind ``follow``, or a trained task of kind ``edges``, or of kind ``condense`` with ``helix``.

    The target is the double majority: more than half of the hits of the track are those of a particle, and more than
    half of its hits are in the track. ``prepare`` gives the prediction of the finder, with ``object.right`` where truth
    is there.
    """

    models = ("mlp",)
    graphs = ("windows", "task", "follow")
    output = "object.logit"

    def __init__(self, config: QualityConfig, graph: nn.Module, model: MLPConfig) -> None:
        super().__init__()
        inputs = getattr(graph, "evidence", ())
        if not inputs:
            known = "kind 'follow', or 'task' with the weights of a task of kind 'edges' or, with helix, 'condense'"
            raise UserError(f"graph: a task of kind 'quality' judges tracks: expected {known}")
        self.config = config
        self.graph: Any = graph
        self.columns = {"object": tuple(inputs)}
        self.scale = Scale(len(inputs))
        self.network = MLP(len(inputs), 1, model)

    def fit(self, events: Sequence[Event]) -> None:
        """Learn what the finder does, and the scale of the inputs."""
        self.graph.fit(events)
        rows = torch.cat([self.arrays(self.prepare(event))["object"] for event in events[:4]])
        self.scale.fit(self._compressed(rows))

    def prepare(self, event: Event) -> Event:
        """The tracks, with their evidence and their target."""
        if len(event) != 1:
            return batch([self.prepare(part) for part in unbatch(event)])
        with torch.no_grad():
            found: Event = self.graph.find(event)
        if "object" not in event.point:
            return found
        return found.with_columns("object", right=torch.from_numpy(matched(Match.of(found, event), "double")))

    def arrays(self, event: Event) -> dict[str, Tensor]:
        """What is known of the tracks."""
        rows = torch.stack([event.object[name].float().abs() for name in self.columns["object"]], dim=1)
        return {"object": torch.nan_to_num(rows, nan=UNFITTED, posinf=UNFITTED).clamp(max=UNFITTED)}

    def _compressed(self, rows: Tensor) -> Tensor:
        return torch.log(1 + rows) if self.config.compress else rows

    def judge(self, *arrays: Tensor) -> Tensor:
        """Logits of the tracks."""
        logits: Tensor = self.network(self.scale(self._compressed(arrays[0]))).squeeze(1)
        return logits

    def forward(self, event: Event) -> Tensor:
        """Logits of the tracks of a prepared event."""
        return self.judge(*self.arrays(event).values())

    def loss(self, event: Event) -> dict[str, Tensor]:
        """Binary cross-entropy over tracks."""
        return {"tracks": binary_focal(self(event), event.object["right"])}

    def propose(self, event: Event) -> Event:
        """There are no edges to hand on."""
        raise UserError("graph.weights: a task of kind 'quality' ends a pipeline: nothing can be built on it")

    def decode(self, event: Event) -> Event:
        """The tracks that are kept, with column ``quality``, their probability."""
        quality = torch.sigmoid(self(event).detach())
        event = event.with_columns("object", quality=quality).to("cpu")
        kept = event.object["quality"] >= self.config.threshold
        place = torch.where(kept, torch.cumsum(kept, 0) - 1, -1)
        count = torch.bincount(event.index("object")[kept], minlength=len(event))
        objects = {name: column[kept] for name, column in event.object.items()}
        track = event.point["object"]
        renumbered = torch.where(track >= 0, torch.cat([place, place.new_tensor([-1])])[track], -1)
        return event.with_level("object", objects, count).with_columns("point", object=renumbered)

    def score(self, event: Event) -> dict[str, Fraction]:
        """Of the right tracks, those kept; of the kept, those that are right."""
        kept, right = torch.sigmoid(self(event)).cpu() >= self.config.threshold, event.object["right"].cpu()
        return {"efficiency": Fraction.of(kept[right].numpy()), "purity": Fraction.of(right[kept].numpy())}

    def stages(self, event: Event) -> dict[str, Event]:
        """The edges after each stage of the finder, and those along all tracks that it finds."""
        return {**self.graph.stages(event), self.config.stage: track_pairs(event, self.prepare(event))}
