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


@numba.njit(cache=True, fastmath=FAST, inline="always")
def _impact(x: Any, y: Any, acx: Any, acy: Any, ac: Any, curvature: Any) -> Any:
    """Distance (mm) from the beam line of the circle through a=(x, y) and c=a+(acx, acy) with a signed curvature."""
    radius = 1 / max(abs(curvature), 1e-7)  # in double precision: a small difference of two large lengths
    rise = np.sqrt(max(radius * radius - 0.25 * ac * ac, 0.0))
    side = 1.0 if curvature > 0 else -1.0
    centre_x = x + 0.5 * acx - side * rise * acy / ac
    centre_y = y + 0.5 * acy + side * rise * acx / ac
    return F(abs(np.sqrt(centre_x * centre_x + centre_y * centre_y) - radius))


@numba.njit(cache=True, fastmath=FAST, inline="always")
def _judge(a: int, b: int, c: int, x: Array, y: Array, z: Array, sigma: Array, bound: float) -> Any:
    """Cost, curvature, impact parameter and straightness of the helix through hits a, b, c (in this order).

    The cost is infinite, and the impact parameter not computed, where the straightness alone reaches ``bound``.

    The straightness is the squared distance of b from the line a-c in the (arc length, z) plane, in units of the
    variance from the hit resolutions and from multiple scattering in b at the momentum that the circle gives.
    """
    abx, aby, abz = x[b] - x[a], y[b] - y[a], z[b] - z[a]
    bcx, bcy, bcz = x[c] - x[b], y[c] - y[b], z[c] - z[b]
    acx, acy = x[c] - x[a], y[c] - y[a]
    ab, bc, ac = np.sqrt(abx * abx + aby * aby), np.sqrt(bcx * bcx + bcy * bcy), np.sqrt(acx * acx + acy * acy)
    if ab < F(1e-6) or bc < F(1e-6) or ac < F(1e-6):
        return INFINITE, F(0), F(0), INFINITE
    curvature = F(2) * (abx * bcy - aby * bcx) / (ab * bc * ac)
    blur = F(2) * (sigma[b, 0] + (bc * sigma[a, 0] + ab * sigma[c, 0]) / ac) / (ab * bc)
    least = abs(curvature) - F(3) * blur
    if least > MAX_CURVATURE:
        return INFINITE, F(0), F(0), INFINITE
    half1, half2 = min(F(0.5) * ab * abs(curvature), F(1)), min(F(0.5) * bc * abs(curvature), F(1))
    s1, s2 = ab * (F(1) + half1 * half1 / F(6)), bc * (F(1) + half2 * half2 / F(6))
    run, rise = s1 + s2, abz + bcz
    length = F(1) / np.sqrt(run * run + rise * rise)
    sine, cosine = run * length, rise * length
    far = s1 / run
    near = F(1) - far
    variance = (sigma[b, 1] * sine) ** 2 + (sigma[b, 2] * cosine) ** 2
    variance += near * near * ((sigma[a, 1] * sine) ** 2 + (sigma[a, 2] * cosine) ** 2)
    variance += far * far * ((sigma[c, 1] * sine) ** 2 + (sigma[c, 2] * cosine) ** 2)
    pt = min(max(CURVATURE_GEV_MM / max(abs(curvature), F(1e-9)), F(0.05)), F(20))
    if least <= 0:
        pt = max(pt, F(0.3))
    scattering = SCATTERING / pt
    variance += (scattering * far * s2) ** 2  # the angle is shorter by the sine, the lever longer
    bend = abz * sine - s1 * cosine
    straight = bend * bend / variance
    if straight >= bound:
        return INFINITE, F(0), F(0), straight
    impact = _impact(x[a], y[a], acx, acy, ac, curvature)
    inner, middle = np.sqrt(x[a] * x[a] + y[a] * y[a]), np.sqrt(x[b] * x[b] + y[b] * y[b])
    doubt = impact / (IMPACT_RESOLUTION + inner * (F(0.5) * blur * middle + scattering * max(sine, F(1e-3))))
    return straight + min(doubt * doubt, IMPACT_COST), curvature, impact, straight


@numba.njit(cache=True, fastmath=FAST, parallel=True)
def _best(
    x: Array, y: Array, z: Array, sigma: Array, sender: Array, receiver: Array, into: Any, out: Any
) -> tuple[Array, Array]:
    best = np.zeros((6, len(sender)), np.float32)  # cost, curvature, impact, each inwards and outwards
    best[:2] = NO_TRIPLET
    ways = np.zeros((2, len(sender)), np.float32)
    # An edge ends in one hit and starts in one: no two threads write to the same place.
    for b in numba.prange(len(x)):
        for p in range(into[0][b], into[0][b + 1]):
            e1 = into[1][p]
            for q in range(out[0][b], out[0][b + 1]):
                e2 = out[1][q]
                bound = max(best[1, e1], best[0, e2])
                cost, curvature, impact, straight = _judge(sender[e1], b, receiver[e2], x, y, z, sigma, bound)
                if straight < 9:
                    ways[1, e1] += 1
                    ways[0, e2] += 1
                if cost < best[1, e1]:
                    best[1, e1], best[3, e1], best[5, e1] = cost, curvature, impact
                if cost < best[0, e2]:
                    best[0, e2], best[2, e2], best[4, e2] = cost, curvature, impact
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
