"""Ragged operations: segment sums and softmax, fixed-radius search, components. Compiled on CPU, torch on a device."""

from __future__ import annotations

from typing import Any, cast

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components as _scipy_components
from torch import Tensor

Array = NDArray[Any]


@numba.njit(cache=True)
def _counting_sort(index: Array, segments: int) -> tuple[Array, Array]:
    """CSR form of a segment index: rows of segment i are ``order[offset[i]:offset[i + 1]]``, in their given order."""
    offset = np.zeros(segments + 1, np.int64)
    for i in index:
        if i < 0 or i >= segments:
            raise IndexError("segment out of range")
        offset[i + 1] += 1
    for i in range(segments):
        offset[i + 1] += offset[i]
    cursor = offset[:-1].copy()
    order = np.empty(len(index), np.int64)
    for row in range(len(index)):
        order[cursor[index[row]]] = row
        cursor[index[row]] += 1
    return offset, order


@numba.njit(cache=True, parallel=True)
def _sum_rows(x: Array, offset: Array, order: Array) -> Array:
    out = np.zeros((len(offset) - 1, x.shape[1]), x.dtype)
    for segment in numba.prange(len(offset) - 1):
        for k in range(offset[segment], offset[segment + 1]):
            row = order[k]
            for column in range(x.shape[1]):
                out[segment, column] += x[row, column]
    return out


def group(index: Tensor | Array, segments: int) -> tuple[Array, Array]:
    """Offsets, shape ``(segments + 1,)``, and row order that gather equal indices, in time linear in the rows."""
    return cast(tuple[Array, Array], _counting_sort(np.asarray(index), segments))


def exporting() -> bool:
    """Whether a network is being turned into a graph of operations, for sizes that are not known."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def _compiled(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.ndim == 2 and not exporting()


def _sum_on_cpu(x: Tensor, index: Tensor, segments: int) -> Tensor:
    offset, order = group(index.numpy(), segments)
    return torch.from_numpy(_sum_rows(x.detach().contiguous().numpy(), offset, order))


def _sum_in_order(x: Tensor, index: Tensor, segments: int) -> Tensor:
    """Segment sums for other engines: differences of a cumulative sum in double precision over the sorted rows.

    ONNX Runtime adds the rows of an ``index_add`` in a race of its threads. The first segment must have rows.
    """
    rows = index.new_zeros(segments).scatter_add(0, index, torch.ones_like(index))
    last = rows.cumsum(0) - 1
    total = x.index_select(0, index.argsort()).double().cumsum(0)
    before = torch.cat([total.new_zeros((1, total.shape[1])), total.index_select(0, last[:-1])])
    return (total.index_select(0, last) - before).to(x.dtype)


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, segments: int) -> Tensor:
        ctx.save_for_backward(index)
        return _sum_on_cpu(x, index, segments)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gather(grads[0], index), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(x)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return segment_sum(grads[0], index, ctx.rows), None


def segment_sum(x: Tensor, index: Tensor, segments: int) -> Tensor:
    """Sum the rows of each segment: ``(rows, width)``, ``(rows,)`` -> ``(segments, width)``.

    On a CPU rows are added in their given order, whatever the number of threads: the result is reproducible to the bit.
    """
    if _compiled(x):
        if not (torch.is_grad_enabled() and x.requires_grad):  # half of the time of a few rows
            return _sum_on_cpu(x, index, segments)
        return cast(Tensor, _SegmentSum.apply(x, index, segments))  # type: ignore[no-untyped-call]
    if torch.onnx.is_in_onnx_export():
        return _sum_in_order(x, index, segments)
    return x.new_zeros((segments, *x.shape[1:])).index_add(0, index, x)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``x[index]``; the gradient is a ``segment_sum``, reproducible to the bit on a CPU."""
    if torch.is_grad_enabled() and x.requires_grad and _compiled(x):
        return cast(Tensor, _Gather.apply(x, index))  # type: ignore[no-untyped-call]
    return x.index_select(0, index)


def segment_mean(x: Tensor, index: Tensor, segments: int) -> Tensor:
    """Mean of the rows of each segment, 0 where it has none."""
    if _compiled(x):
        count = torch.bincount(index, minlength=segments).unsqueeze(1)
    else:
        count = segment_sum(x.new_ones((x.shape[0], 1)), index, segments)  # len() would be fixed by an export
    return segment_sum(x, index, segments) / count.clamp(min=1)


def segment_max(x: Tensor, index: Tensor, segments: int) -> Tensor:
    """Maximum of the rows of each segment, 0 where it has none."""
    target = index.unsqueeze(-1).expand_as(x)
    return x.new_zeros((segments, x.shape[1])).scatter_reduce(0, target, x, "amax", include_self=False)


def segment_argmax(x: Tensor, index: Tensor, segments: int) -> Tensor:
    """The row of the largest value of each segment, of equals the first: ``(rows,) x 2 -> (segments,)``.

    For a segment without rows it is the number of all rows.
    """
    best = gather(segment_max(x.unsqueeze(1), index, segments), index).squeeze(1)
    row = torch.where(x == best, torch.arange(len(x), device=x.device), len(x))
    return row.new_full((segments,), len(x)).scatter_reduce(0, index, row, "amin")


def segment_softmax(x: Tensor, index: Tensor, segments: int) -> Tensor:
    """Softmax over the rows of each segment, shape ``(rows, width)``."""
    shifted = (x - gather(segment_max(x.detach(), index, segments), index)).exp()
    return shifted / gather(segment_sum(shifted, index, segments), index).clamp(min=1e-12)


def connected_components(sender: Array, receiver: Array, points: int) -> tuple[int, Array]:
    """Number of components of an undirected graph, and the component of each point, shape ``(points,)``."""
    graph = coo_matrix((np.ones(len(sender), np.int8), (sender, receiver)), shape=(points, points))
    count, label = _scipy_components(graph, directed=False)
    return int(count), label.astype(np.int64)


@numba.njit(cache=True)
def grid(x: Array, radius: float) -> tuple[Array, Array, Array, Array, Array]:
    """Sort points into a grid over their first coordinates, at most 3: ``low``, ``edge`` and ``size`` of it, ``(3,)``,
    and the points of cell ``i``, ``order[offset[i]:offset[i + 1]]``.

    Cells have the edge ``radius``, or longer ones where that would be many more cells than points.
    """
    dims = min(x.shape[1], 3)
    low, edge = np.zeros(3), np.full(3, radius)
    size = np.ones(3, np.int64)
    most = max(4.0 * len(x), 64.0) ** (1 / dims)
    for d in range(dims if len(x) else 0):
        low[d] = x[:, d].min()
        extent = x[:, d].max() - low[d]
        edge[d] = max(radius, extent / most)
        size[d] = int(extent / edge[d]) + 1
    key = np.zeros(len(x), np.int64)
    for i in range(len(x)):
        for d in range(dims):
            key[i] = key[i] * size[d] + min(int((x[i, d] - low[d]) / edge[d]), size[d] - 1)
    offset, order = _counting_sort(key, size[0] * size[1] * size[2])
    return low, edge, size, offset, order


@numba.njit(cache=True)
def near_cells(point: Array, low: Array, edge: Array, size: Array) -> Array:
    """The cells of ``grid`` that may hold a point within the radius of this one: their numbers."""
    found = np.empty(27, np.int64)
    found[0], number = 0, 1
    for d in range(min(len(point), 3)):
        at = (point[d] - low[d]) / edge[d]
        first = int(min(max(np.floor(at) - 1, 0), size[d]))
        last = int(max(min(np.floor(at) + 2, size[d]), 0))
        steps = max(last - first, 0)
        for n in range(number - 1, -1, -1):  # backwards, for what is read is overwritten last
            base = found[n] * size[d]
            for s in range(steps):
                found[n * steps + s] = base + first + s
        number *= steps
    return found[:number]


@numba.njit(cache=True)
def squared_distance(x: Array, y: Array) -> float:
    """Of two points."""
    total = 0.0
    for d in range(len(x)):
        total += (x[d] - y[d]) ** 2
    return total


@numba.njit(cache=True, parallel=True)
def _near(x: Array, event: Array, at: Array, at_event: Array, own: Array, radius: float, k: int) -> Array:
    low, edge, size, offset, order = grid(x, radius)
    placed, asked = x[order], grid(at, radius)[4]  # in the order of grids: what neighbours look at is in the cache
    found = np.full((len(at), k), -1, np.int64)
    reach = np.full((len(at), k), np.inf)
    for number in numba.prange(len(at)):
        row, worst, filled = asked[number], 0, 0
        for key in near_cells(at[row], low, edge, size):
            for place in range(offset[key], offset[key + 1]):
                j = order[place]
                if j == own[row] or event[j] != at_event[row]:
                    continue
                distance = squared_distance(at[row], placed[place])
                if distance > radius * radius or distance >= reach[row, worst]:
                    continue
                slot = filled if filled < k else worst
                found[row, slot], reach[row, slot] = j, distance
                filled = min(filled + 1, k)
                worst = filled if filled < k else int(np.argmax(reach[row]))
    return found


def _pairs(
    x: Array, event: Array, at: Array, at_event: Array, own: Array, radius: float, k: int
) -> tuple[Tensor, Tensor]:
    rows, asked = np.flatnonzero(np.isfinite(x).all(1)), np.flatnonzero(np.isfinite(at).all(1))
    if len(asked) == 0 or len(rows) == 0 or k < 1 or radius <= 0:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    place = np.full(len(x) + 1, -1)  # of each finite point among the finite ones
    place[rows] = np.arange(len(rows))
    found = _near(x[rows], event[rows], at[asked], at_event[asked], place[own[asked]], float(radius), k)
    row, slot = np.nonzero(found >= 0)
    return torch.from_numpy(asked[row]), torch.from_numpy(rows[found[row, slot]])


def fixed_radius(x: Tensor, radius: float, k: int, event: Tensor, query: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The at most ``k`` nearest neighbours within ``radius``, of the same event: pairs (point, neighbour).

    ``x`` has shape ``(points, dims)``, ``event`` ``(points,)``; ``query`` names the points asked about, all by default.
    A grid over the first three coordinates makes the search linear in the points where their density there is
    bounded; distances are taken in all coordinates. Points with a coordinate that is not finite have no neighbours.
    The result lies on the CPU.
    """
    array, number = _double(x), event.cpu().numpy()
    asked = np.arange(len(array)) if query is None else query.cpu().numpy()
    row, near = _pairs(array, number, array[asked], number[asked], asked, radius, k)
    return torch.from_numpy(asked)[row], near


def around(at: Tensor, x: Tensor, radius: float, k: int, at_event: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
    """The at most ``k`` nearest points ``x`` (points, dims) within ``radius`` of each place ``at`` (places, dims).

    Pairs (place, point) of the same event; otherwise as ``fixed_radius``.
    """
    none = np.full(len(at), -1)
    return _pairs(_double(x), event.cpu().numpy(), _double(at), at_event.cpu().numpy(), none, radius, k)


def _double(x: Tensor) -> Array:
    return x.detach().cpu().double().numpy()


def squash(z: Tensor) -> Tensor:
    """``sign(z) ln(1 + |z|)``: LorentzNet's psi (arXiv:2201.08187), for numbers over many orders of magnitude."""
    return torch.sign(z) * torch.log1p(z.abs())
