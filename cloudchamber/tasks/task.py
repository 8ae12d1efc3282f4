"""What every task is: Events in, a loss to train with and predicted Events out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from torch import Tensor, nn

from cloudchamber.event import Event
from cloudchamber.metrics import Fraction


class Graph(Protocol):
    """A source of candidate edges."""

    def fit(self, events: Sequence[Event]) -> None:
        """Learn from events with truth what is not learned by gradients."""

    def __call__(self, event: Event) -> Event:
        """The event with edges."""


class Task(nn.Module, ABC):
    """Head, loss, decoding and score of one kind of learning. Abstract: subclasses are final."""

    #: The kinds of models (rows of ``BLOCKS``) that the task is built on.
    models: ClassVar[tuple[str, ...]]

    #: The kinds of graphs (rows of ``GRAPHS``) that it takes, the one it has by default first.
    graphs: ClassVar[tuple[str, ...]] = ("windows", "task")

    #: Events are many and small: ``prepare`` is quick and is called for each batch of them, nothing of it is kept.
    packed: ClassVar[bool] = False

    #: What the names of tensors begin with that a training from the weights of another one makes anew.
    heads: ClassVar[tuple[str, ...]] = ()

    #: What ``judge`` gives, one row per point, edge, object or scene: ``point.NAME``, ``edge.NAME`` ...
    output: ClassVar[str]

    #: Columns of the inputs of ``judge`` that have several.
    columns: Mapping[str, Sequence[str]]

    @abstractmethod
    def fit(self, events: Sequence[Event]) -> None:
        """Learn from a few events what gradients do not: windows of the graph, scales of the inputs."""

    @abstractmethod
    def prepare(self, event: Event) -> Event:
        """Everything before the network that has no gradient; the loop keeps the result for later epochs."""

    @abstractmethod
    def arrays(self, event: Event) -> dict[str, Tensor]:
        """The inputs of ``judge`` from a prepared event, by name, in order.

        ``point`` (points, columns) and ``layer`` (points,); where edges are judged also ``edge`` (edges, columns),
        ``sender`` and ``receiver`` (edges,). Features are float32 as they are, not scaled; whole numbers are int64.
        """

    @abstractmethod
    def judge(self, *arrays: Tensor) -> Tensor:
        """All that is learned by gradients, and the scaling before it: a function of tensors, for export."""

    @abstractmethod
    def loss(self, event: Event) -> dict[str, Tensor]:
        """Parts of the loss of a prepared event with truth; their sum is minimised."""

    @abstractmethod
    def propose(self, event: Event) -> Event:
        """The prepared event with the edges that this task would hand on, scored where it scores them."""

    @abstractmethod
    def decode(self, event: Event) -> Event:
        """The prediction for a prepared event: ``point.id``, ``point.object`` and the objects."""

    @abstractmethod
    def score(self, event: Event) -> dict[str, Fraction]:
        """Counts that tell how good the task is on a prepared event with truth; they add up over events.

        The event may lie on the device of the task.
        """

    @abstractmethod
    def stages(self, event: Event) -> dict[str, Event]:
        """The edges after each stage of the pipeline for a raw event, first to last."""
