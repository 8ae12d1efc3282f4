"""Networks of whole sets: a body of blocks over the points, pooling, and a head with one row of outputs per set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cloudchamber.nn.attention import Attention, AttentionConfig, PairBias
from cloudchamber.nn.lorentz import Lorentz, LorentzConfig, inner
from cloudchamber.nn.message import Message, MessageConfig
from cloudchamber.nn.mlp import MLP, MLPConfig
from cloudchamber.nn.pairs import PAIR_FEATURES, pair_features
from cloudchamber.nn.pool import Pool, Pooling
from cloudchamber.ops import gather, squash
from cloudchamber.sets import Sets, nearest, others

PART = 2048  # points looked at together where there are many edges


@dataclass(frozen=True, eq=False)
class Cloud:
    """What a body may look at beside the features of the points.

    ``sets``; ``polar`` (points, 3): pT (GeV), eta and phi; ``momentum`` (points, 4): px, py, pz, E (GeV), float64;
    ``sender`` and ``receiver`` (edges,): a graph. What a model has no ``needs`` of may be left out.
    """

    sets: Sets
    polar: Tensor | None = None
    momentum: Tensor | None = None
    sender: Tensor | None = None
    receiver: Tensor | None = None

    def parts(self, x: Tensor) -> list[tuple[Tensor, Cloud]]:
        """The rows of x ``(points, width)`` and the cloud in parts of whole sets that lie one after another.

        On a CPU parts have about ``PART`` points: what is made of their edges then stays near the processor.
        """
        if self.sets.given or x.device.type != "cpu" or len(x) <= PART:
            return [(x, self)]
        end = self.sets.count.cumsum(0)
        cuts = torch.unique(torch.searchsorted(end, torch.arange(PART, len(x), PART)) + 1)
        bounds = [0, *cuts[cuts < len(end)].tolist(), len(end)]
        edges = None if self.receiver is None else self.sets.index[self.receiver]  # rising: edges lie event by event
        found = []
        for first, last in pairwise(bounds):
            start, stop = (int(end[number - 1]) if number else 0 for number in (first, last))
            rows = {
                k: v if v is None else v[start:stop] for k, v in (("polar", self.polar), ("momentum", self.momentum))
            }
            if edges is not None:
                low, high = torch.searchsorted(edges, torch.tensor([first, last])).tolist()
                for name in ("sender", "receiver"):
                    rows[name] = _given(getattr(self, name), name)[low:high] - start
            found.append((x[start:stop], Cloud(Sets.of(self.sets.count[first:last]), **rows)))
        return found


def _given(tensor: Tensor | None, name: str) -> Tensor:
    if tensor is None:
        raise ValueError(f"cloud: this network needs {name}")
    return tensor


class PointBody(nn.Module):
    """Every point by itself: deep sets, particle flow and energy flow networks."""

    def __init__(self, inputs: int, config: MLPConfig) -> None:
        super().__init__()
        self.mlp = MLP(inputs, config.width, config)

    def forward(self, x: Tensor, cloud: Cloud) -> Tensor:
        """``(points, inputs) -> (points, width)``, the last layer with ReLU."""
        return torch.relu(self.mlp(x))


class GraphBody(nn.Module):
    """Message passing along the graph, or among nearest neighbours: by angle at first, then in the learned space."""

    def __init__(self, inputs: int, config: MessageConfig) -> None:
        super().__init__()
        self.config = config
        encoder = MLPConfig(width=config.width, depth=1)
        self.point = MLP(inputs, config.width, encoder, norm=True)
        self.edge = MLP(PAIR_FEATURES, config.width, encoder, norm=True) if config.edges and config.depth else None
        self.rounds = nn.ModuleList(Message(config) for _ in range(config.depth))

    def forward(self, x: Tensor, cloud: Cloud) -> Tensor:
        """``(points, inputs) -> (points, width)``."""
        polar = _given(cloud.polar, "polar")
        x, e, space = self.point(x), None, polar[:, 1:]
        for block in self.rounds:
            if self.config.neighbours:
                sender, receiver = nearest(space, self.config.neighbours, cloud.sets)
            else:
                sender, receiver = _given(cloud.sender, "sender"), _given(cloud.receiver, "receiver")
            if self.edge is not None and (e is None or self.config.neighbours):
                e = self.edge(pair_features(polar[sender], polar[receiver]))
            if self.config.recompute and torch.is_grad_enabled():
                x, e = checkpoint(block, x, e, sender, receiver, use_reentrant=False)
            else:
                x, e = block(x, e, sender, receiver)
            space = x
        return x


class SetBody(nn.Module):
    """Transformer encoder over each set; with ``pairs``, all heads of all blocks share the bias of the pairs."""

    def __init__(self, inputs: int, config: AttentionConfig) -> None:
        super().__init__()
        self.point = MLP(inputs, config.width, MLPConfig(width=config.width, depth=1), norm=True)
        self.bias = (
            PairBias(pair_features, PAIR_FEATURES, config.pairs, config.heads)
            if config.pairs and config.depth
            else None
        )
        self.blocks = nn.ModuleList(Attention(config) for _ in range(config.depth))

    def forward(self, x: Tensor, cloud: Cloud) -> Tensor:
        """``(points, inputs) -> (points, width)``."""
        x = self.point(x)
        polar = None if self.bias is None else cloud.sets.spread(_given(cloud.polar, "polar"))
        found = []
        for number, (dense, table) in enumerate(zip(cloud.sets.spread(x), cloud.sets.tables, strict=True)):
            bias = None
            if self.bias is not None and polar is not None:
                bias = self.bias(polar[number], half=not cloud.sets.given)
            for block in self.blocks if dense.shape[1] else ():
                dense = block(dense, table.mask, bias)
            found.append(dense)
        return cloud.sets.rows(found)


class LorentzBody(nn.Module):
    """Lorentz-equivariant message passing; the features must be invariant for the output to be so.

    A particle's own mass m, that of the set M (GeV), and M times the particle's energy in the rest frame of the set go
    in as ``psi(m^2)``, ``psi(M^2)`` and ``psi(<p, P>)`` with the sum P of all momenta. With ``beam`` pairs also have
    ``pair_features``: of all Lorentz transformations only those remain that leave the beam as it is.
    """

    def __init__(self, inputs: int, config: LorentzConfig) -> None:
        super().__init__()
        self.beam = config.beam
        self.point = MLP(inputs + 3, config.width, MLPConfig(width=config.width, depth=1), norm=True)
        last = config.depth - 1
        self.rounds = nn.ModuleList(Lorentz(config, move=number < last) for number in range(config.depth))

    def forward(self, x: Tensor, cloud: Cloud) -> Tensor:
        """``(points, inputs) -> (points, width)``."""
        p = _given(cloud.momentum, "momentum")
        whole = gather(cloud.sets.sum(p), cloud.sets.index)
        known = torch.stack([inner(p, p), inner(whole, whole), inner(p, whole)], dim=1)
        x = self.point(torch.cat([x, squash(known).to(x)], dim=1))
        polar = cloud.sets.spread(_given(cloud.polar, "polar")) if self.beam else None
        vectors, found = cloud.sets.spread(p), []
        for number, (h, table) in enumerate(zip(cloud.sets.spread(x), cloud.sets.tables, strict=True)):
            pairs, q = others(table), vectors[number]
            lab = None if polar is None else pair_features(polar[number].unsqueeze(2), polar[number].unsqueeze(1))
            for block in self.rounds if h.shape[1] else ():
                h, q = block(h, q, pairs, lab)
            found.append(h)
        return cloud.sets.rows(found)


#: Kind of model -> its body.
BODIES: dict[str, Callable[[int, Any], nn.Module]] = {
    "mlp": PointBody,
    "message": GraphBody,
    "attention": SetBody,
    "lorentz": LorentzBody,
}
_NEEDS: dict[str, set[str]] = {"mlp": set(), "message": {"polar"}, "attention": {"polar"}, "lorentz": {"momentum"}}


def needs(model: Any) -> set[str]:
    """What the body of a model reads of a cloud, beside the sets. Only ``message`` reads a graph."""
    return _NEEDS[model.kind] | ({"polar"} if getattr(model, "beam", False) else set())


CATEGORIES, CATEGORY_WIDTH = 64, 8


class SceneNetwork(nn.Module):
    """Body, pooling, head: features ``(points, inputs)`` of a cloud to ``(sets, outputs)``, and the points it made.

    ``categories``: the last input is a whole number per point (a particle type; its size modulo ``CATEGORIES``), which
    is embedded. ``head``: hidden layers after the pooling.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        model: Any,
        pool: Pooling = "sum",
        *,
        head: int = 1,
        pool_depth: int = 1,
        categories: bool = False,
    ) -> None:
        super().__init__()
        self.category = nn.Embedding(CATEGORIES, CATEGORY_WIDTH) if categories else None
        self.parts = model.kind in ("message", "lorentz")
        self.body = BODIES[model.kind](inputs + (CATEGORY_WIDTH - 1 if categories else 0), model)
        self.pool = Pool(pool, model.width, getattr(model, "heads", 1), pool_depth)
        self.head = MLP(model.width, outputs, MLPConfig(width=model.width, depth=head))

    def forward(self, x: Tensor, cloud: Cloud, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs ``(sets, outputs)`` and points ``(points, width)``; ``weight`` (points,) is that of the pooling."""
        if self.category is not None:
            category = x[:, -1].round().abs().long() % CATEGORIES
            x = torch.cat([x[:, :-1], self.category(category)], dim=1)
        points = torch.cat([self.body(*part) for part in cloud.parts(x)]) if self.parts else self.body(x, cloud)
        return self.head(self.pool(points, cloud.sets, weight)), points
