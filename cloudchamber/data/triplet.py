"""Which pairs of hits continue into a third one: the helix hypothesis tested on every triplet of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from cloudchamber.ops import group
from cloudchamber.physics import SPEED_OF_LIGHT

Array = NDArray[Any]

#: Of the best continuation inwards (``_in``) and outwards (``_out``) of an edge: cost, signed curvature (1/mm), impact
#: parameter (mm), and how many continuations are straight within three standard deviations.
TRIPLET_COLUMNS = tuple(f"{name}_{way}" for name in ("cost", "curvature", "impact", "ways") for way in ("in", "out"))

F = np.float32  # single precision where it is enough: a bare Python number in a compiled function makes it double
CURVATURE_GEV_MM = F(SPEED_OF_LIGHT * 2e-3)  # pT (GeV) times curvature (1/mm) in the 2 T of the TrackML detector
NO_TRIPLET = F(100)
INFINITE = F(np.inf)
FAST = {"reassoc", "contract", "arcp", "nsz"}  # not the assumption that nothing is infinite
RADIATION_LENGTHS = 0.03  # of one layer of the TrackML detector, about
SCATTERING = F(0.0136 * RADIATION_LENGTHS**0.5)  # GeV, angle times momentum
IMPACT_RESOLUTION = F(0.3)  # mm, of a stiff triplet near the beam line
IMPACT_COST = F(6)  # a displaced track costs at most this much: it is doubted, not excluded
MAX_CURVATURE = F(CURVATURE_GEV_MM / 0.08)  # 1/mm, at a pT of 0.08 GeV
PARTS = 64  # of the hits, shared out to the threads
TOGETHER = 512  # triplets judged at a time: they fit in the cache


@numba.njit(cache=True, fastmath=FAST, inline="always")
def _arm(x: Array, y: Array, z: Array, sigma: Array, a: int, b: int, arm: Array, place: int) -> None:
    """What triplets with the middle b need of its edge with a: the vector (and its length) from b to a, resolutions."""
    dx, dy = x[a] - x[b], y[a] - y[b]
    arm[0, place], arm[1, place], arm[2, place] = dx, dy, z[a] - z[b]
    arm[3, place] = np.sqrt(dx * dx + dy * dy)
    for k in range(3):
        arm[4 + k, place] = sigma[a, k]


@numba.njit(cache=True, fastmath=FAST, error_model="numpy")
def _judge(x: Any, y: Any, own: Array, a: Array, c: Array, count: int, out: Array) -> None:
    """Cost, curvature, impact parameter and straightness of the helices through a, b, c (in this order), into ``out``.

    ``x, y, own``: place of b and its resolutions; the first ``count`` columns of ``a`` and ``c`` are arms of b. The
    loop has no branches, so that it runs on whole vectors.

    The straightness is the squared distance of b from the line a-c in the (arc length, z) plane, in units of the
    variance from the hit resolutions and from multiple scattering in b at the momentum that the circle gives.
    """
    middle = np.sqrt(x * x + y * y)
    for i in range(count):
        abx, aby, abz, ab = -a[0, i], -a[1, i], -a[2, i], a[3, i]
        bcx, bcy, bcz, bc = c[0, i], c[1, i], c[2, i], c[3, i]
        ax, ay, acx, acy = x - abx, y - aby, abx + bcx, aby + bcy
        inner, ac = np.sqrt(ax * ax + ay * ay), np.sqrt(acx * acx + acy * acy)
        per_ac, per_arms = F(1) / max(ac, F(1e-6)), F(1) / max(ab * bc, F(1e-12))
        curvature = F(2) * (abx * bcy - aby * bcx) * per_arms * per_ac
        bend = abs(curvature)
        blur = F(2) * (own[0] + (bc * a[4, i] + ab * c[4, i]) * per_ac) * per_arms
        least = bend - F(3) * blur
        half1, half2 = min(F(0.5) * ab * bend, F(1)), min(F(0.5) * bc * bend, F(1))
        s1, s2 = ab * (F(1) + half1 * half1 / F(6)), bc * (F(1) + half2 * half2 / F(6))
        run, rise = s1 + s2, abz + bcz
        far, length = s1 / max(run, F(1e-6)), F(1) / max(np.sqrt(run * run + rise * rise), F(1e-6))
        near = F(1) - far
        sine, cosine = run * length, rise * length
        slower = max(min(bend * F(1 / CURVATURE_GEV_MM), F(20)), F(0.05))  # the inverse of pT
        scattering = SCATTERING * (min(slower, F(1 / 0.3)) if least <= F(0) else slower)
        turn = scattering * far * s2  # the angle is shorter by the sine, the lever longer
        along = own[1] * own[1] + near * near * a[5, i] * a[5, i] + far * far * c[5, i] * c[5, i]
        across = own[2] * own[2] + near * near * a[6, i] * a[6, i] + far * far * c[6, i] * c[6, i]
        off = abz * sine - s1 * cosine
        straight = off * off / (along * sine * sine + across * cosine * cosine + turn * turn)
        # The circle touches at a the chord a-c turned by half the angle that it covers.
        swing = min(max(F(0.5) * ac * curvature, F(-1)), F(1))
        level = np.sqrt(F(1) - swing * swing)
        normal = (ax * (acx * swing - acy * level) + ay * (acx * level + acy * swing)) * per_ac
        miss = F(0.5) * curvature * inner * inner + normal
        impact = F(2) * abs(miss) / (F(1) + np.sqrt(max(F(1) + F(2) * curvature * miss, F(0))))
        reach = IMPACT_RESOLUTION + inner * (F(0.5) * blur * middle + scattering * max(sine, F(1e-3)))
        doubt = impact / reach
        fits = (least <= MAX_CURVATURE) & (ac > F(1e-6)) & (ab * bc > F(1e-12))
        out[0, i] = straight + min(doubt * doubt, IMPACT_COST) if fits else INFINITE
        out[1, i] = curvature
        out[2, i] = impact
        out[3, i] = straight if fits else INFINITE


@numba.njit(cache=True, inline="always")
def _copy(source: Array, target: Array) -> None:
    for i in range(len(source)):
        target[i] = source[i]


@numba.njit(cache=True, inline="always")
def _fill(target: Array, value: Any) -> None:
    for i in range(len(target)):
        target[i] = value


@numba.njit(cache=True)
def _keep(found: Array, own: Array) -> Any:
    """Best cost, curvature, impact and number of straight ones of the triplets of one inner arm, one per outer arm.

    ``own``: the same four of each outer arm, brought up to date.
    """
    cost, curvature, impact, straight = found[0], found[1], found[2], found[3]
    own_cost, own_curvature, own_impact, own_ways = own[0], own[1], own[2], own[3]
    best, place, ways = NO_TRIPLET, -1, F(0)
    for q in range(len(cost)):
        near, new, bend, miss = F(straight[q] < 9), cost[q], curvature[q], impact[q]
        old, old_bend, old_miss = own_cost[q], own_curvature[q], own_impact[q]
        ways += near
        own_ways[q] += near
        own_cost[q] = new if new < old else old
        own_curvature[q] = bend if new < old else old_bend
        own_impact[q] = miss if new < old else old_miss
    for q in range(len(cost)):
        if cost[q] < best:
            best, place = cost[q], q
    if place < 0:
        return NO_TRIPLET, F(0), F(0), ways
    return best, curvature[place], impact[place], ways


@numba.njit(cache=True, parallel=True)
def _best(
    x: Array, y: Array, z: Array, sigma: Array, sender: Array, receiver: Array, into: Any, out: Any
) -> tuple[Array, Array]:
    best = np.zeros((6, len(sender)), np.float32)  # cost, curvature, impact, each inwards and outwards
    best[:2] = NO_TRIPLET
    ways = np.zeros((2, len(sender)), np.float32)
    size = TOGETHER
    for b in range(len(x)):
        size = max(size, out[0][b + 1] - out[0][b])
    # An edge ends in one hit and starts in one: no two threads write to the same place.
    for part in numba.prange(PARTS):
        arm, a, c = np.empty((7, 1), np.float32), np.empty((7, size), np.float32), np.empty((7, size), np.float32)
        found, own = np.empty((4, size), np.float32), np.empty((4, size), np.float32)
        for b in range(part, len(x), PARTS):
            inward, outward = into[1][into[0][b] : into[0][b + 1]], out[1][out[0][b] : out[0][b + 1]]
            ways_out, step = len(outward), max(TOGETHER // max(len(outward), 1), 1)
            if ways_out == 0 or len(inward) == 0:
                continue
            for q in range(ways_out):
                _arm(x, y, z, sigma, receiver[outward[q]], b, c, q)
                own[0, q], own[1, q], own[2, q], own[3, q] = NO_TRIPLET, F(0), F(0), F(0)
            for p in range(1, min(step, len(inward))):
                for k in range(7):
                    _copy(c[k, :ways_out], c[k, p * ways_out : (p + 1) * ways_out])
            for first in range(0, len(inward), step):
                chosen = inward[first : first + step]
                for p in range(len(chosen)):
                    _arm(x, y, z, sigma, sender[chosen[p]], b, arm, 0)
                    for k in range(7):
                        _fill(a[k, p * ways_out : (p + 1) * ways_out], arm[k, 0])
                _judge(x[b], y[b], sigma[b], a, c, len(chosen) * ways_out, found)
                for p in range(len(chosen)):
                    e1 = chosen[p]
                    best[1, e1], best[3, e1], best[5, e1], ways[1, e1] = _keep(
                        found[:, p * ways_out : (p + 1) * ways_out], own[:, :ways_out]
                    )
            for q in range(ways_out):
                e2 = outward[q]
                best[0, e2], best[2, e2], best[4, e2], ways[0, e2] = own[0, q], own[1, q], own[2, q], own[3, q]
    return best, ways


def triplet_features(hit: Mapping[str, Array], sender: Array, receiver: Array) -> dict[str, Array]:
    """For every edge its best continuation inwards and outwards, as columns ``TRIPLET_COLUMNS``, float32 ``(edges,)``.

    ``hit`` holds x, y, z and sigma_t, sigma_z, sigma_r in mm. The time is linear in the triplets of the graph.
    """
    points = len(hit["x"])
    sigma = np.stack([hit["sigma_t"], hit["sigma_z"], hit["sigma_r"]], axis=1)
    into, out = group(receiver, points), group(sender, points)
    best, ways = _best(hit["x"], hit["y"], hit["z"], sigma, sender, receiver, into, out)
    return dict(zip(TRIPLET_COLUMNS, [*best, *ways], strict=True))
