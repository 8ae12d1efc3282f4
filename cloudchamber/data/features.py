"""Tracking inputs: what a network is given of hits and of pairs of hits, and which pairs are true."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloudchamber.data.triplet import TRIPLET_COLUMNS, triplet_features
from cloudchamber.event import Event
from cloudchamber.physics import hit_sigmas

Array = NDArray[Any]

_VERTEX = ("vx", "vy", "vz")

HIT_INPUTS = ("radius", "z")
PAIR_COLUMNS = ("dphi", "dr", "dz", "slope", "z0")
PAIR_INPUTS = PAIR_COLUMNS + TRIPLET_COLUMNS


def layer_key(event: Event) -> Tensor:
    """One number per detector layer, shape ``(points,)``: 100 times the volume plus the layer."""
    return event.point["volume"] * 100 + event.point["layer"]


def hit_columns(event: Event) -> Event:
    """Add cylindrical coordinates ``radius`` (mm), ``phi`` (rad) and resolutions ``sigma_t|z|r`` (mm) to the points."""
    x, y = event.point["x"], event.point["y"]
    sigma = hit_sigmas(*(event.point[name].numpy() for name in "xyz"))
    names = ("sigma_t", "sigma_r", "sigma_z")
    columns = {name: torch.from_numpy(s.astype(np.float32)) for name, s in zip(names, sigma, strict=True)}
    return event.with_columns("point", radius=torch.hypot(x, y), phi=torch.atan2(y, x), **columns)


def direction_columns(event: Event) -> Event:
    """Add ``radius`` (mm), ``cos_phi``, ``sin_phi`` and ``eta``, seen from the origin, to points that lack them."""
    if not {"x", "y", "z"} <= event.point.keys():
        return event
    x, y, z = (event.point[name] for name in "xyz")
    radius = torch.hypot(x, y)
    safe = radius.clamp(min=1e-3)
    columns = {"radius": radius, "cos_phi": x / safe, "sin_phi": y / safe, "eta": torch.asinh(z / safe)}
    return event.with_columns("point", **{name: c for name, c in columns.items() if name not in event.point})


@numba.njit(cache=True)
def pair_features(radius: float, phi: float, z: float, radius2: float, phi2: float, z2: float) -> Any:
    """Of two hits: dphi (rad), dr, dz (mm), slope dphi/dr (rad/mm) and z extrapolated to the beam line (mm)."""
    turn = 2 * np.pi if phi2 - phi < -np.pi else (-2 * np.pi if phi2 - phi > np.pi else 0.0)
    dphi, dr, dz = np.float32(phi2 - phi + turn), np.float32(radius2 - radius), np.float32(z2 - z)
    run = dr if abs(dr) > 1e-3 else np.float32(1e-3)
    return dphi, dr, dz, np.float32(dphi / run), np.float32(z - radius * dz / run)


@numba.njit(cache=True, parallel=True)
def pair_values(radius: Array, phi: Array, z: Array, sender: Array, receiver: Array) -> Array:
    """``pair_features`` of every edge, shape ``(edges, 5)``."""
    out = np.empty((len(sender), 5), np.float32)
    for i in numba.prange(len(sender)):
        a, b = sender[i], receiver[i]
        values = pair_features(radius[a], phi[a], z[a], radius[b], phi[b], z[b])
        for k in range(5):
            out[i, k] = values[k]
    return out


def edge_columns(event: Event) -> Event:
    """Add the inputs ``PAIR_INPUTS`` of every edge: geometry of the pair and its best continuation either way.

    Needs the columns of ``hit_columns``. Units: mm, rad; see ``triplet_features`` for the second group.
    """
    hit = {
        name: event.point[name].numpy() for name in ("x", "y", "z", "radius", "phi", "sigma_t", "sigma_z", "sigma_r")
    }
    sender, receiver = event.edge["sender"].numpy(), event.edge["receiver"].numpy()
    pairs = pair_values(hit["radius"], hit["phi"], hit["z"], sender, receiver)
    columns = {name: torch.from_numpy(pairs[:, i].copy()) for i, name in enumerate(PAIR_COLUMNS)}
    found = triplet_features(hit, sender, receiver)
    columns |= {name: torch.from_numpy(column) for name, column in found.items()}
    return event.with_columns("edge", **columns)


def true_pairs(event: Event) -> tuple[Tensor, Tensor]:
    """Rows (inner, outer) of hits that follow one another on the track of one particle.

    Hits are ordered along the track by their distance from the production vertex; of each pair the hit nearer to the
    origin is the sender, so that graphs have no cycles.
    """
    particle = event.point["object"].numpy()
    hit = np.flatnonzero(particle >= 0)
    particle = particle[hit]
    away = np.zeros(len(hit))
    for x, v in zip("xyz", _VERTEX, strict=True):
        away += (event.point[x].numpy()[hit] - event.object[v].numpy()[particle]).astype(np.float64) ** 2
    order = np.lexsort((away, particle))
    follows = particle[order[1:]] == particle[order[:-1]]
    first, second = hit[order[:-1][follows]], hit[order[1:][follows]]
    distance = np.sum([event.point[name].double().numpy() ** 2 for name in "xyz"], axis=0)
    swap = distance[first] > distance[second]
    return torch.from_numpy(np.where(swap, second, first)), torch.from_numpy(np.where(swap, first, second))


def label_edges(event: Event) -> Event:
    """Add the target ``hits`` to the edges: how many hits the particle of both ends has, 0 where they differ."""
    particle = event.point["object"]
    sender, receiver = particle[event.edge["sender"]], particle[event.edge["receiver"]]
    hits = torch.bincount(particle + 1, minlength=1)
    return event.with_columns("edge", hits=torch.where((sender == receiver) & (sender >= 0), hits[sender + 1], 0))
