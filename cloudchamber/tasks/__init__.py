"""What is learned: each task sees Events. A new task is one file and one row of ``TASKS``."""

from torch import nn

from cloudchamber.data.graph import Windows, WindowsConfig
from cloudchamber.data.neighbours import Neighbours, NeighboursConfig
from cloudchamber.tasks.condense import Condense
from cloudchamber.tasks.condense_config import CondenseConfig
from cloudchamber.tasks.edges import Edges, EdgesConfig
from cloudchamber.tasks.embed import Embed, EmbedConfig
from cloudchamber.tasks.follow import Follow, FollowConfig
from cloudchamber.tasks.graph import Proposal, ProposalConfig
from cloudchamber.tasks.quality import Quality, QualityConfig
from cloudchamber.tasks.tag import Tag, TagConfig
from cloudchamber.tasks.task import Task

#: kind -> (settings, task)
TASKS: dict[str, tuple[type, type[Task]]] = {
    "edges": (EdgesConfig, Edges),
    "embed": (EmbedConfig, Embed),
    "quality": (QualityConfig, Quality),
    "tag": (TagConfig, Tag),
    "condense": (CondenseConfig, Condense),
}

#: kind -> (settings, source of edges, or of tracks)
GRAPHS: dict[str, tuple[type, type[nn.Module]]] = {
    "windows": (WindowsConfig, Windows),
    "task": (ProposalConfig, Proposal),
    "follow": (FollowConfig, Follow),
    "neighbours": (NeighboursConfig, Neighbours),
}

__all__ = ["GRAPHS", "TASKS", "Proposal", "ProposalConfig", "Task"]
