"""Layers: they see tensors and know no data set. A new block is one file and one row of ``BLOCKS``."""

from cloudchamber.nn.attention import Attention, AttentionConfig
from cloudchamber.nn.lorentz import Lorentz, LorentzConfig
from cloudchamber.nn.message import Message, MessageConfig, PairMLP
from cloudchamber.nn.mlp import MLP, MLPConfig
from cloudchamber.nn.network import SPACE, CloudNetwork, EdgeNetwork, PointNetwork
from cloudchamber.nn.pool import Pooling
from cloudchamber.nn.scene import Cloud, SceneNetwork, needs

#: kind -> (settings, block)
BLOCKS = {
    "mlp": (MLPConfig, MLP),
    "message": (MessageConfig, Message),
    "attention": (AttentionConfig, Attention),
    "lorentz": (LorentzConfig, Lorentz),
}

__all__ = [
    "BLOCKS",
    "MLP",
    "SPACE",
    "Attention",
    "AttentionConfig",
    "Cloud",
    "CloudNetwork",
    "EdgeNetwork",
    "Lorentz",
    "LorentzConfig",
    "MLPConfig",
    "Message",
    "MessageConfig",
    "PairMLP",
    "PointNetwork",
    "Pooling",
    "SceneNetwork",
    "needs",
]
