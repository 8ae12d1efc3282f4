"""Graphs made by tasks: the candidate edges of one stage are what a trained stage before it proposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from cloudchamber.event import Event
from cloudchamber.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """Settings of ``Proposal``: the checkpoint that training starts from, and the run inside it, filled in then."""

    kind: Literal["task"] = "task"
    weights: str = ""
    run: dict[str, Any] | None = None


class Proposal(nn.Module):
    """The edges that a trained, frozen task proposes: an embedding its neighbours, an edge filter what it keeps."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task.requires_grad_(False)

    def fit(self, events: Sequence[Event]) -> None:
        """Nothing to learn: the task is trained."""

    def forward(self, event: Event) -> Event:
        """The event with the proposed edges."""
        with torch.no_grad():
            device = next(self.task.parameters()).device
            return self.task.propose(self.task.prepare(event).to(device)).to("cpu")

    @property
    def evidence(self) -> Sequence[str]:
        """What is known of the tracks that the task makes; nothing if it makes none."""
        return getattr(self.task, "evidence", ())

    def find(self, event: Event) -> Event:
        """The tracks that the task makes."""
        return self.task.decode(self.task.prepare(event))

    def stages(self, event: Event) -> dict[str, Event]:
        """The edges after each stage of the task."""
        return self.task.stages(event)


def graph_stages(graph: nn.Module, event: Event) -> dict[str, Event]:
    """The edges after each stage of any graph; the last is what the graph returns."""
    return graph.stages(event) if isinstance(graph, Proposal) else {"candidates": graph(event)}
