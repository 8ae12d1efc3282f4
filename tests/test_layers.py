"""Blocks against those of PyTorch and PyTorch Geometric, with the same weights, and against formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cloudchamber.nn.attention import MultiHead, PairBias, Seeds
from cloudchamber.nn.lorentz import SHARE, STEP, Lorentz, LorentzConfig, inner
from cloudchamber.nn.message import Message, MessageConfig
from cloudchamber.nn.pairs import pair_features
from cloudchamber.nn.scene import Cloud, LorentzBody
from cloudchamber.ops import squash
from cloudchamber.physics import delta_r, invariant_mass
from cloudchamber.sets import Sets

WIDTH = 12


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_multi_head_attention_is_that_of_pytorch(cross: bool, biased: bool) -> None:
    torch.manual_seed(1)
    sets, n, m, heads = 5, 7, (9 if cross else 7), 3
    own, theirs = MultiHead(WIDTH, heads).double(), nn.MultiheadAttention(WIDTH, heads, batch_first=True).double()
    parts = (own.query, own.key, own.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.weight.copy_(own.out.weight)
        theirs.out_proj.bias.copy_(own.out.bias)
    x = torch.randn(sets, n, WIDTH, dtype=torch.float64)
    y = torch.randn(sets, m, WIDTH, dtype=torch.float64) if cross else x
    mask = torch.arange(m) < torch.tensor([m, 1, 3, 5, 2]).unsqueeze(1)
    bias = torch.randn(sets, heads, n, m, dtype=torch.float64) if biased else None
    logit = None if bias is None else bias.flatten(0, 1)
    padding = torch.zeros(sets, m, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    expected, _ = theirs(x, y, y, key_padding_mask=padding, attn_mask=logit)
    torch.testing.assert_close(own(x, y, mask, bias), expected)


def test_a_query_without_keys_is_finite() -> None:
    found = MultiHead(WIDTH, 2)(torch.randn(2, 3, WIDTH), torch.randn(2, 4, WIDTH), torch.zeros(2, 4, dtype=torch.bool))
    assert torch.isfinite(found).all()
    seeds = Seeds(WIDTH, 2, depth=2, seeds=3)
    empty = seeds(torch.zeros(2, 0, WIDTH), torch.zeros(2, 0, dtype=torch.bool))
    padded = seeds(torch.randn(2, 4, WIDTH), torch.zeros(2, 4, dtype=torch.bool))
    torch.testing.assert_close(empty, padded)
    assert empty.shape == (2, 3 * WIDTH)


def test_the_bias_of_pairs_is_worked_out_once() -> None:
    bias = PairBias(pair_features, 4, 8, 3)
    x = torch.rand(2, 9, 3)
    found = bias(x)
    assert found.shape == (2, 3, 9, 9)
    torch.testing.assert_close(found, bias(x, half=False))
    torch.testing.assert_close(found, found.transpose(2, 3))


def test_the_features_of_pairs_equal_their_formulas() -> None:
    a, b = torch.tensor([30.0, 0.3, 3.1]), torch.tensor([10.0, -0.1, -3.1])  # across phi = pi
    distance = delta_r(0.3, 3.1, -0.1, -3.1)
    mass = invariant_mass(30.0, 0.3, 3.1, 10.0, -0.1, -3.1)
    expected = [math.log(v) for v in (distance, 10 * distance, 10 / 40, mass**2)]
    found = pair_features(a, b) * torch.tensor([1.5, 2.0, 1.5, 4.0]) + torch.tensor([-1.5, -1.0, -2.0, -2.0])
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pair_features(a, b), pair_features(b, a))
    assert torch.isfinite(pair_features(a, a)).all()


def test_collinear_pairs_keep_their_digits() -> None:
    torch.manual_seed(0)
    a = torch.rand(200, 3, dtype=torch.float64) * torch.tensor([300.0, 1.0, 1.0])
    b = a + torch.rand(200, 3, dtype=torch.float64) * torch.tensor([5.0, 1e-2, 1e-2])
    exact, single = pair_features(a, b), pair_features(a.float(), b.float())
    assert float((single - exact).abs().max()) < 1e-3


def cloud(points: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Points, and the sender and receiver of edges, sorted by neither; the last point has none."""
    torch.manual_seed(2)
    ends = torch.randint(points - 1, (2, 40))
    return torch.randn(points, WIDTH, dtype=torch.float64), ends[0], ends[1]


@pytest.mark.parametrize("how", ["mean", "max", "sum"])
def test_edge_convolution_is_that_of_pytorch_geometric(how: str) -> None:
    pyg = pytest.importorskip("torch_geometric.nn", reason="needs torch_geometric")
    x, sender, receiver = cloud()
    config = MessageConfig(width=WIDTH, gather=how, gate=False, edges=False, both=False)  # type: ignore[arg-type]
    own = Message(config).double()
    first = nn.Linear(2 * WIDTH, WIDTH).double()
    pair = own.update_edge
    theirs = pyg.EdgeConv(nn.Sequential(first, nn.ReLU(), *pair.rest), aggr=how)  # which draws new weights
    with torch.no_grad():  # of (x_i, x_j - x_i)
        first.weight.copy_(torch.cat([pair.receiver.weight + pair.sender.weight, pair.sender.weight], dim=1))
        first.bias.copy_(pair.receiver.bias)
    expected = theirs(x, torch.stack([sender, receiver]))
    found = own._gathered(pair(x, None, sender, receiver), None, receiver, len(x))
    torch.testing.assert_close(found, expected)


def test_attention_over_edges_is_that_of_pytorch_geometric() -> None:
    aggr = pytest.importorskip("torch_geometric.nn.aggr", reason="needs torch_geometric")
    x, sender, receiver = cloud()
    own = Message(MessageConfig(width=WIDTH, gather="attention", edges=False, both=False)).double()
    message = own.update_edge(x, None, sender, receiver)
    assert own.gate is not None
    theirs = aggr.AttentionalAggregation(own.gate)
    order = torch.argsort(receiver, stable=True)
    expected = theirs(message[order], receiver[order], dim_size=len(x))
    torch.testing.assert_close(own._gathered(message, own.gate(message), receiver, len(x)), expected)


@pytest.mark.parametrize("how", ["add", "mean", "max"])
def test_pooling_is_that_of_pytorch_geometric(how: str) -> None:
    pyg = pytest.importorskip("torch_geometric.nn", reason="needs torch_geometric")
    count = torch.tensor([3, 0, 9, 1])
    x, sets = torch.randn(13, WIDTH), Sets.of(count)
    expected = getattr(pyg, f"global_{how}_pool")(x, sets.index, size=len(count))
    found = {"add": sets.sum, "mean": sets.mean, "max": sets.max}[how](x)
    torch.testing.assert_close(found, expected)


def test_the_lorentz_block_equals_its_formulas() -> None:
    torch.manual_seed(3)
    block = Lorentz(LorentzConfig(width=6)).double()
    h, p = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    others = ~torch.eye(4, dtype=torch.bool)
    found_h, found_p = (rows[0] for rows in block(h[None], p[None], others[None]))
    judge, push = block.message, block.push
    assert judge.edge is not None
    assert push is not None
    for i in range(4):
        total, moved = torch.zeros(6, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        for j in set(range(4)) - {i}:
            pair = torch.stack([squash(inner(p[i] - p[j], p[i] - p[j])), squash(inner(p[i], p[j]))])
            hidden = torch.relu(judge.edge(pair) + judge.sender(h[j]) + judge.receiver(h[i]))
            message = torch.relu(judge.rest(hidden))
            total = total + torch.sigmoid(block.gate(message)) * message
            moved = moved + push(message) * p[j] / 3
        torch.testing.assert_close(found_p[i], p[i] + STEP * moved)
        torch.testing.assert_close(found_h[i], h[i] + block.update(torch.cat([h[i], SHARE * total])))


def test_vectors_turn_with_the_frame() -> None:
    torch.manual_seed(4)
    block = Lorentz(LorentzConfig(width=6)).double()
    h, p = torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    others = ~torch.eye(5, dtype=torch.bool).expand(2, 5, 5)
    boost = torch.eye(4, dtype=torch.float64)
    cosh, sinh = math.cosh(1.3), math.sinh(1.3)
    boost[2:, 2:] = torch.tensor([[cosh, sinh], [sinh, cosh]], dtype=torch.float64)
    one, other = block(h, p, others), block(h, p @ boost.T, others)
    torch.testing.assert_close(other[0], one[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other[1], one[1] @ boost.T, rtol=1e-10, atol=1e-10)


def test_particles_know_the_momentum_of_their_set() -> None:
    """Two photons back to back, which have a mass together, and a single one."""
    p = torch.tensor([[3.0, 0, 4, 5], [-3, 0, -4, 5], [0, 6, 8, 10]], dtype=torch.float64)
    body, seen = LorentzBody(0, LorentzConfig(width=6, depth=0)), []
    body.point.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    body(torch.zeros(3, 0), Cloud(Sets.of(torch.tensor([2, 1])), momentum=p))
    expected = squash(torch.tensor([[0.0, 100, 50], [0, 100, 50], [0, 0, 0]]))
    torch.testing.assert_close(seen[0], expected)


def test_the_product_of_minkowski() -> None:
    p = torch.tensor([3.0, 0.0, 4.0, 6.0])
    assert float(inner(p, p)) == 36 - 25
    assert float(squash(torch.tensor(-1.0))) == pytest.approx(-math.log(2))
