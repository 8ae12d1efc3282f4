"""Layers: they see tensors and know no data set. A new block is one file and one row of ``BLOCKS``."""

from cloudchamber.nn.message import Message, MessageConfig
from cloudchamber.nn.mlp import MLP, MLPConfig
from cloudchamber.nn.network import EdgeNetwork, PointNetwork

#: kind -> (settings, block)
BLOCKS = {"mlp": (MLPConfig, MLP), "message": (MessageConfig, Message)}

__all__ = ["BLOCKS", "MLP", "EdgeNetwork", "MLPConfig", "Message", "MessageConfig", "PointNetwork"]
