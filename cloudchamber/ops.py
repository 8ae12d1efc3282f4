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
        return cast(Tensor, _SegmentSum.apply(x, index, segments))  # type: ignore[no-untyped-call]
    if torch.onnx.is_in_onnx_export():
        return _sum_in_order(x, index, segments)
    return x.new_zeros((segments, *x.shape[1:])).index_add(0, index, x)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``x[index]``; the gradient is a ``segment_sum``, reproducible to the bit on a CPU."""
    if _compiled(x):
        return cast(Tensor, _Gather.apply(x, index))  # type: ignore[no-untyped-call]
    return x.index_select(0, index)


def segment_mean(x: Tensor, index: Tensor, segments: int) -> Tensor:
    """Mean of the rows of each segment, 0 where it has none."""
    count = segment_sum(x.new_ones((x.shape[0], 1)), index, segments)  # len() would be fixed by an export
    return segment_sum(x, index, segments) / count.clamp(min=1)


def segment_max(x: Tensor, index: Tensor, segments: int) -> Tensor:
    """Maximum of the rows of each segment, 0 where it has none."""
    target = index.unsqueeze(-1).expand_as(x)
    return x.new_zeros((segments, x.shape[1])).scatter_reduce(0, target, x, "amax", include_self=False)


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
def _cells(x: Array, radius: float, dims: int) -> tuple[Array, Array, Array, Array]:
    """Sort points into a grid over the first ``dims`` coordinates (at most 3): cells of edge ``radius``, or longer ones
    where that would be many more cells than points."""
    low, edge = np.zeros(3), np.full(3, radius)
    size = np.ones(3, np.int64)
    most = max(4.0 * len(x), 64.0) ** (1 / dims)
    for d in range(dims):
        low[d] = x[:, d].min()
        extent = x[:, d].max() - low[d]
        edge[d] = max(radius, extent / most)
        size[d] = int(extent / edge[d]) + 1
    cell = np.zeros((len(x), 3), np.int64)
    key = np.zeros(len(x), np.int64)
    for i in range(len(x)):
        for d in range(dims):
            cell[i, d] = min(int((x[i, d] - low[d]) / edge[d]), size[d] - 1)
        key[i] = (cell[i, 0] * size[1] + cell[i, 1]) * size[2] + cell[i, 2]
    offset, order = _counting_sort(key, size[0] * size[1] * size[2])
    return cell, size, offset, order


@numba.njit(cache=True, parallel=True)
def _near(x: Array, event: Array, query: Array, radius: float, k: int, dims: int) -> Array:
    cell, size, offset, order = _cells(x, radius, dims)
    found = np.full((len(query), k), -1, np.int64)
    reach = np.full((len(query), k), np.inf)
    for row in numba.prange(len(query)):
        i = query[row]
        worst, filled = 0, 0
        for a in range(max(cell[i, 0] - 1, 0), min(cell[i, 0] + 2, size[0])):
            for b in range(max(cell[i, 1] - 1, 0), min(cell[i, 1] + 2, size[1])):
                for c in range(max(cell[i, 2] - 1, 0), min(cell[i, 2] + 2, size[2])):
                    key = (a * size[1] + b) * size[2] + c
                    for j in order[offset[key] : offset[key + 1]]:
                        if j == i or event[j] != event[i]:
                            continue
                        distance = 0.0
                        for d in range(x.shape[1]):
                            distance += (x[i, d] - x[j, d]) ** 2
                        if distance > radius * radius or distance >= reach[row, worst]:
                            continue
                        slot = filled if filled < k else worst
                        found[row, slot], reach[row, slot] = j, distance
                        filled = min(filled + 1, k)
                        worst = filled if filled < k else int(np.argmax(reach[row]))
    return found


def fixed_radius(x: Tensor, radius: float, k: int, event: Tensor, query: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The at most ``k`` nearest neighbours within ``radius``, of the same event: pairs (point, neighbour).

    ``x`` has shape ``(points, dims)``, ``event`` ``(points,)``; ``query`` names the points asked about, all by default.
    A grid over the first three coordinates makes the search linear in the points where their density there is
    bounded; distances are taken in all coordinates. Points with a coordinate that is not finite have no neighbours.
    The result lies on the CPU.
    """
    array = x.detach().cpu().double().numpy()
    finite = np.isfinite(array).all(1)
    rows = np.flatnonzero(finite)
    asked = rows if query is None else query.cpu().numpy()
    asked = asked[finite[asked]]
    if len(asked) == 0 or k < 1 or radius <= 0:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    number = np.cumsum(finite) - 1  # of each finite point among the finite ones
    dims = min(array.shape[1], 3)
    found = _near(array[rows], event.cpu().numpy()[rows], number[asked], float(radius), k, dims)
    row, slot = np.nonzero(found >= 0)
    return torch.from_numpy(asked[row]), torch.from_numpy(rows[found[row, slot]])
