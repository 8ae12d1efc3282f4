"""What is learned of a detector from events with truth: its layers, their order, and where particles begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudchamber.data.features import layer_key
from cloudchamber.data.shapes import lengths
from cloudchamber.event import Event
from cloudchamber.follow import HIT, NEXT
from cloudchamber.physics import hit_sigmas, perigee
from cloudchamber.physics.material import TRACKML

Array = NDArray[Any]

#: The columns of ``LAYER`` that are learned.
SHAPE = ("disc", "at", "spread", "low", "high", "thickness", "error_t", "error_w")
THICKNESS = 0.02  # radiation lengths, where no wall is known


def shapes(events: Sequence[Event], layer: Sequence[Array], layers: int) -> Array:
    """The columns ``SHAPE`` of layers, ``(layers, 8)``: a layer thinner along z than along r is a disc."""
    x, y, z = (np.concatenate([event.point[name].double().numpy() for event in events]) for name in "xyz")
    r, (error_t, error_r, error_z), which = np.hypot(x, y), hit_sigmas(x, y, z), np.concatenate(layer)
    shape = np.zeros((layers, 8))
    for row in range(layers):
        own = np.flatnonzero(which == row)
        disc = np.ptp(z[own]) < np.ptp(r[own])
        across, along = (z[own], r[own]) if disc else (r[own], z[own])
        at = (across.min() + across.max()) / 2
        error = max(error_r[own].max(), error_z[own].max())
        ends = along.min() - 1, along.max() + 1
        shape[row] = disc, at, np.ptp(across) / 2, *ends, _thickness(disc, at, sum(ends) / 2), error_t[own].max(), error
    return shape


def hits_of(event: Event, keys: Array) -> tuple[Array, Array]:
    """The hits in the layers of these sorted keys as rows of ``HIT``, in no order; and their rows in the event."""
    where = layer_key(event).numpy()
    layer = np.minimum(np.searchsorted(keys, where), max(len(keys) - 1, 0))
    known = np.flatnonzero(keys[layer] == where) if len(keys) else np.zeros(0, np.int64)
    hits = np.zeros(len(known), HIT)
    hits["x"], hits["y"], hits["z"] = (event.point[name].numpy()[known] for name in "xyz")
    hits["radius"], hits["phi"] = np.hypot(hits["x"], hits["y"]), np.arctan2(hits["y"], hits["x"])
    hits["error_t"], hits["error_r"], hits["error_z"] = hit_sigmas(hits["x"], hits["y"], hits["z"])
    module = event.point["module"].numpy() if "module" in event.point else np.arange(len(where))
    hits["layer"], hits["module"], hits["track"] = layer[known], module[known], -1
    hits["length"], hits["width"] = (length[known] for length in lengths(event))
    return hits, known


def _thickness(disc: bool, at: float, along: float) -> float:
    """Radiation lengths of the nearest known wall, if one is within 10 mm."""
    walls = TRACKML[(TRACKML[:, 0] == disc) & (TRACKML[:, 2] < along) & (along < TRACKML[:, 3])]
    distance = np.abs(walls[:, 1] - at)
    return float(walls[distance.argmin(), 4]) if len(walls) and distance.min() < 10 else THICKNESS


def likeliest(count: Array, rare: float) -> Array:
    """For each layer those that come next on more than a share ``rare`` of the tracks, likeliest first, then -1."""
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    order = np.argsort(-share, axis=1, kind="stable")[:, :NEXT]
    result = np.full((len(count), NEXT), -1)
    result[:, : order.shape[1]] = np.where(np.take_along_axis(share, order, 1) > rare, order, -1)
    return result


def or_after(count: Array) -> Array:
    """Add to the numbers of tracks from layer to layer those that would come there if they missed the layer between.

    Simulated tracks miss none, those of a detector do.
    """
    either = count + count @ (count / np.maximum(count.sum(1, keepdims=True), 1))
    np.fill_diagonal(either, 0)  # there and back
    return np.asarray(either)


def true_perigee(event: Event) -> tuple[Array, Array, Array]:
    """pT (GeV), d0 and z0 (mm) of the particles."""
    vx, vy, vz, px, py, pz, charge = (
        event.object[name].double().numpy() for name in ("vx", "vy", "vz", "px", "py", "pz", "charge")
    )
    true = perigee(vx, vy, vz, px, py, pz, charge)
    return true.pt, np.abs(true.d0), np.abs(true.z0)


def found_particles(event: Event, track: Array) -> tuple[Array, Array]:
    """The particles that are found, double majority, and their tracks."""
    particle = event.point["object"].numpy()
    hits = np.bincount(particle + 1, minlength=event.rows("object") + 1)[1:]
    both = np.flatnonzero((particle >= 0) & (track >= 0))
    joint, shared = np.unique(np.stack([particle[both], track[both]]), axis=1, return_counts=True)
    good = (2 * shared > hits[joint[0]]) & (2 * shared > np.bincount(track[both])[joint[1]])
    return joint[0, good], joint[1, good]


def first_layers(
    event: Event, layer: Array, pairs: Sequence[Array], track: Array, wanted: Array
) -> tuple[Array, Array]:
    """The first two layers with free hits of each wanted particle that counts in the score and is not found yet."""
    particle = event.point["object"].numpy()
    inner, outer = pairs
    wanted = wanted & ~np.isin(np.arange(event.rows("object")), found_particles(event, track)[0])
    free = (track[inner] < 0) & (track[outer] < 0) & (layer[inner] != layer[outer])
    rows = np.flatnonzero(free & wanted[particle[inner]] & (event.point["weight"].numpy()[inner] > 0))
    _, first = np.unique(particle[inner[rows]], return_index=True)  # pairs are in order along the track
    return layer[inner[rows[first]]], layer[outer[rows[first]]]
