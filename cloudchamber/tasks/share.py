"""Sharing: the points of showers, once these are known, each to the one that is expected to leave most in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cloudchamber.data.sampling import DEPTH
from cloudchamber.event import Event
from cloudchamber.ops import around, segment_argmax
from cloudchamber.tasks.payload import column

#: Columns of the objects that say what a shower leaves where.
NEEDS = ("energy", "x", "y", "dx", "dy")
_NEAR = 8  # showers of which a point may be, at most


def beside(event: Event, objects: Mapping[str, Tensor], point: Tensor, object: Tensor) -> Tensor:
    """mm from points to axes of showers across z, float64: ``point`` and ``object`` are the rows of the pairs."""
    deep, away = column(event, "point", "z").double()[point] - DEPTH, []
    for name in "xy":
        axis = objects[name].double()[object] + objects[f"d{name}"].double()[object] * deep
        away.append(column(event, "point", name).double()[point] - axis)
    return torch.hypot(*away)


def share(
    event: Event,
    place: Tensor,
    leader: Tensor,
    number: Tensor,
    objects: Mapping[str, Tensor],
    *,
    take: float,
    lateral: float,
) -> Tensor:
    """The object of each point, ``(points,)`` as ``number``, where -1 stays: the one of largest ln E - r / lateral - d.

    E is the energy of an object and r the distance from its axis (mm), so that the first two terms are the logarithm of
    what a shower leaves that falls off exponentially over ``lateral``; d is the distance in the learned space,
    ``place`` (points, dimensions), from the point ``leader`` (objects,) that stands for the object. ``objects`` has the
    columns ``NEEDS``; those with leaders within ``take`` are compared, the nearest eight at most. Leaders stay.
    """
    index = event.index("point")
    point, object = around(place, place[leader], take, _NEAR, index, index[leader])
    point, object = (rows[number[point] >= 0] for rows in (point, object))
    far = (place[point] - place[leader[object]]).double().norm(dim=1)
    energy = objects["energy"].double().clamp(min=1e-3)[object]
    score = energy.log() - beside(event, objects, point, object) / lateral - far
    best = segment_argmax(score, point, len(number))
    shared = torch.where(best < len(object), torch.cat([object, object.new_full((1,), -1)])[best], number)
    shared[leader] = torch.arange(len(leader))
    return shared
