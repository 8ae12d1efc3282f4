"""Track quality: the probability that a track that was found is a particle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from cloudchamber.data.scale import Scale
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.losses import binary_focal
from cloudchamber.metrics import Fraction, Match, matched
from cloudchamber.nn import MLP, MLPConfig
from cloudchamber.tasks.graph import Proposal
from cloudchamber.tasks.task import Task
from cloudchamber.tasks.tracks import EVIDENCE, track_pairs

TRACK_INPUTS = ("chi2", "ndf", "hits", "pt", "eta", "d0", "z0", *EVIDENCE)
UNFITTED = 1e4  # stands for what is not a number


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Settings of ``Quality``: the name in reports of the tracks before it, the probability from which one is kept."""

    kind: Literal["quality"] = "quality"
    stage: str = "found tracks"
    threshold: float = 0.8


class Quality(Task):
    """Judges the tracks of a trained task by their fit and by the edges along and across them, and drops the doubtful.

    The target is the double majority: more than half of the hits of the track are those of a particle, and more than
    half of its hits are in the track. ``prepare`` gives the prediction of that task, with ``object.right`` where truth
    is there.
    """

    model = "mlp"
    output = "object.logit"
    columns: ClassVar = {"object": TRACK_INPUTS}

    def __init__(self, config: QualityConfig, graph: nn.Module, model: MLPConfig) -> None:
        super().__init__()
        if not isinstance(graph, Proposal) or "graph" not in dict(graph.task.named_children()):
            raise UserError(
                "graph: a task of kind 'quality' needs kind 'task' with the weights of a task of kind 'edges'"
            )
        self.config = config
        self.graph = graph
        self.scale = Scale(len(TRACK_INPUTS))
        self.network = MLP(len(TRACK_INPUTS), 1, model)

    def fit(self, events: Sequence[Event]) -> None:
        """Learn the scale of the inputs."""
        self.scale.fit(torch.cat([self.arrays(self.prepare(event))["object"] for event in events[:4]]))

    def prepare(self, event: Event) -> Event:
        """The tracks, with their evidence and their target."""
        if len(event) != 1:
            return batch([self.prepare(part) for part in unbatch(event)])
        with torch.no_grad():
            found = self.graph.task.decode(self.graph.task.prepare(event))
        if "object" not in event.point:
            return found
        return found.with_columns("object", right=torch.from_numpy(matched(Match.of(found, event), "double")))

    def arrays(self, event: Event) -> dict[str, Tensor]:
        """What is known of the tracks."""
        rows = torch.stack([event.object[name].float().abs() for name in TRACK_INPUTS], dim=1)
        return {"object": torch.nan_to_num(rows, nan=UNFITTED, posinf=UNFITTED).clamp(max=UNFITTED)}

    def judge(self, *arrays: Tensor) -> Tensor:
        """Logits of the tracks."""
        logits: Tensor = self.network(self.scale(arrays[0])).squeeze(1)
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
        """The edges after each stage of the task that finds the tracks, and those along all tracks that it finds."""
        return {**self.graph.stages(event), self.config.stage: track_pairs(event, self.prepare(event))}
