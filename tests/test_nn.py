"""The properties of every block and network: order, raggedness, gradients, storage, precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cloudchamber.nn import (
    BLOCKS,
    MLP,
    Attention,
    AttentionConfig,
    EdgeNetwork,
    Lorentz,
    LorentzConfig,
    Message,
    MessageConfig,
    MLPConfig,
    PointNetwork,
)
from cloudchamber.sets import Sets, others

WIDTH = 8


@dataclass(frozen=True)
class Cloud:
    """Inputs of any network: x ``(points, 8)``, category ``(points,)``, e ``(edges, 8)``, sender, receiver, and the
    number of points of each event."""

    x: Tensor
    category: Tensor
    e: Tensor
    sender: Tensor
    receiver: Tensor
    count: Tensor

    def to(self, dtype: torch.dtype) -> Cloud:
        return Cloud(self.x.to(dtype), self.category, self.e.to(dtype), self.sender, self.receiver, self.count)


Outputs = tuple[Tensor | None, Tensor | None]  # per point, per edge


@dataclass(frozen=True)
class Case:
    """How a block or network is made, and what it makes of a cloud."""

    make: Callable[[], nn.Module]
    call: Callable[[nn.Module, Cloud], Outputs]


def _edges(network: nn.Module, c: Cloud) -> Outputs:
    return None, network(c.x, c.category, c.e, c.sender, c.receiver)


def _attention(block: nn.Module, c: Cloud) -> Outputs:
    sets = Sets.of(c.count)
    return sets.rows([block(x, table.mask) for x, table in zip(sets.spread(c.x), sets.tables, strict=True)]), None


def _lorentz(block: nn.Module, c: Cloud) -> Outputs:
    sets = Sets.of(c.count)
    given = zip(sets.spread(c.x), sets.tables, strict=True)
    return sets.rows([torch.cat(block(x, x[..., :4], others(table)), dim=2) for x, table in given]), None


def _message(**settings: Any) -> Case:
    config = MessageConfig(width=WIDTH, **settings)

    def call(block: nn.Module, c: Cloud) -> Outputs:
        x, e = block(c.x, c.e, c.sender, c.receiver)
        return x, e if config.edges else None

    return Case(lambda: Message(config), call)


CASES = {
    "mlp": Case(lambda: MLP(WIDTH, 3, MLPConfig(width=9), norm=True), lambda m, c: (m(c.x), m(c.e))),
    "message": _message(),
    "message without gate": _message(gate=False, hidden=2),
    "message, mean": _message(gather="mean", both=False, edges=False),
    "message, maximum": _message(gather="max", gate=False),
    "message, attention": _message(gather="attention", heads=2, both=False),
    "attention": Case(lambda: Attention(AttentionConfig(width=WIDTH, heads=2)), _attention),
    "inducing attention": Case(lambda: Attention(AttentionConfig(width=WIDTH, heads=2, inducing=3)), _attention),
    "lorentz": Case(lambda: Lorentz(LorentzConfig(width=WIDTH)), _lorentz),
    "edge network": Case(lambda: EdgeNetwork(WIDTH, WIDTH, MessageConfig(width=6, depth=2)), _edges),
    "edge network of no rounds": Case(lambda: EdgeNetwork(WIDTH, WIDTH, MessageConfig(width=6, depth=0)), _edges),
    "recomputing edge network": Case(
        lambda: EdgeNetwork(WIDTH, WIDTH, MessageConfig(width=6, depth=2, recompute=True)), _edges
    ),
    "point network": Case(lambda: PointNetwork(WIDTH, 3, MLPConfig(width=9)), lambda m, c: (m(c.x, c.category), None)),
    "unit point network": Case(
        lambda: PointNetwork(WIDTH, 3, MLPConfig(width=9), unit=True), lambda m, c: (m(c.x, c.category), None)
    ),
}

every = pytest.mark.parametrize("name", CASES)


def made(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(1)
    return CASES[name].make().to(dtype)


def cloud(points: int = 12, edges: int = 30, seed: int = 0) -> Cloud:
    g = torch.Generator().manual_seed(seed)
    ends = torch.randint(max(points, 1), (2, edges), generator=g)
    x, e = (torch.randn(n, WIDTH, generator=g, dtype=torch.float64) for n in (points, edges))
    return Cloud(x, torch.randint(0, 5000, (points,), generator=g), e, ends[0], ends[1], torch.tensor([points]))


def close(found: Outputs, expected: Outputs) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other)


def test_every_block_has_a_case() -> None:
    assert set(BLOCKS) <= set(CASES)
    for kind, (settings, block) in BLOCKS.items():
        assert settings().kind == kind
        assert isinstance(made(kind), block)


@every
def test_points_and_edges_may_be_permuted(name: str) -> None:
    module, c = made(name), cloud()
    call = CASES[name].call
    points, edges = torch.randperm(len(c.x)), torch.randperm(len(c.e))
    place = torch.argsort(points)
    ends = (place[c.sender[edges]], place[c.receiver[edges]])
    shuffled = Cloud(c.x[points], c.category[points], c.e[edges], *ends, c.count)
    x, e = call(module, c)
    close(call(module, shuffled), (None if x is None else x[points], None if e is None else e[edges]))


@every
@pytest.mark.parametrize(("points", "edges"), [(0, 0), (1, 0), (5, 0), (1, 2)])
@pytest.mark.parametrize("grad", [True, False])
def test_empty_and_tiny_events(name: str, points: int, edges: int, grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        x, e = CASES[name].call(made(name), cloud(points, edges))
    for out, rows in ((x, points), (e, edges)):
        if out is not None:
            assert len(out) == rows
            assert torch.isfinite(out).all()
            if grad:
                out.sum().backward(retain_graph=True)


@every
def test_a_batch_gives_what_its_events_give(name: str) -> None:
    module, parts = made(name), [cloud(9, 20, 1), cloud(0, 0, 2), cloud(4, 7, 3)]
    start = [0, 9, 9]
    joined = Cloud(
        *(torch.cat([getattr(p, f) for p in parts]) for f in ("x", "category", "e")),
        *(torch.cat([getattr(p, f) + s for p, s in zip(parts, start, strict=True)]) for f in ("sender", "receiver")),
        torch.cat([part.count for part in parts]),
    )
    alone = [CASES[name].call(module, part) for part in parts]
    together = [None if alone[0][i] is None else torch.cat([a[i] for a in alone if a[i] is not None]) for i in (0, 1)]
    close(CASES[name].call(module, joined), (together[0], together[1]))


@every
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    module = made(name)
    generator = torch.Generator().manual_seed(5)
    loss = torch.zeros((), dtype=torch.float64)
    for out in CASES[name].call(module, cloud()):
        if out is not None:
            loss = loss + (out * torch.randn(out.shape, generator=generator, dtype=torch.float64)).sum()
    loss.backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@every
def test_weights_survive_a_file(name: str, tmp_path: Path) -> None:
    module, c = made(name, torch.float32), cloud().to(torch.float32)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    torch.manual_seed(2)
    other = CASES[name].make()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    for one, two in zip(CASES[name].call(module, c), CASES[name].call(other, c), strict=True):
        assert one is two or torch.equal(one, two)  # type: ignore[arg-type]


@every
def test_a_seed_gives_the_same_weights(name: str) -> None:
    for one, two in zip(made(name).state_dict().values(), made(name).state_dict().values(), strict=True):
        assert torch.equal(one, two)


@every
def test_bfloat16_runs_and_is_near_float32(name: str) -> None:
    module, c = made(name, torch.float32), cloud().to(torch.float32)
    exact = CASES[name].call(module, c)
    with torch.autocast("cpu", torch.bfloat16):
        rough = CASES[name].call(module, c)
    for one, two in zip(exact, rough, strict=True):
        if one is not None and two is not None:
            torch.testing.assert_close(two.float(), one, rtol=0.1, atol=0.1)
            two.float().square().sum().backward(retain_graph=True)


def test_recomputed_activations_give_the_same_gradients() -> None:
    found = []
    for name in ("edge network", "recomputing edge network"):
        module = made(name)
        _, e = CASES[name].call(module, cloud())
        assert e is not None
        e.square().sum().backward()
        found.append([parameter.grad for parameter in module.parameters()])
    for one, two in zip(*found, strict=True):
        assert one is not None
        assert two is not None
        assert torch.equal(one, two)


def test_edges_judged_in_parts_are_judged_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudchamber.nn.network.CHUNK", 7)
    module = made("edge network of no rounds")
    _, together = _edges(module, cloud())
    with torch.no_grad():
        _, apart = _edges(module, cloud())
    torch.testing.assert_close(apart, together, check_stride=False)


def test_unit_outputs_lie_on_the_sphere() -> None:
    out, _ = CASES["unit point network"].call(made("unit point network"), cloud())
    assert out is not None
    torch.testing.assert_close(out.norm(dim=1), torch.ones(len(out), dtype=torch.float64))


def test_the_two_directions_of_an_edge_differ() -> None:
    c = cloud()
    module = made("edge network")
    _, e = _edges(module, c)
    _, turned = _edges(module, Cloud(c.x, c.category, c.e, c.receiver, c.sender, c.count))
    assert e is not None
    assert turned is not None
    assert not torch.allclose(e, turned)
