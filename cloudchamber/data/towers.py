"""Towers: the points of an event at the same x and y, as the cells of a calorimeter that lie behind one another."""

from __future__ import annotations

import torch

from cloudchamber.event import Event
from cloudchamber.ops import fixed_radius

_NEAR = 64  # towers about one, at most


def tower_columns(event: Event, reach: float) -> Event:
    """Add ``tower``, ``around`` (GeV) and ``peak`` to points with ``x``, ``y`` (mm) and ``energy`` (GeV).

    ``tower`` is the sum of the energies at the same x and y, ``around`` that of all towers within ``reach`` (mm) of it,
    itself included, and ``peak`` the ratio of ``tower`` to the largest of these: 1 where a shower may have its axis.
    All float32; 0 where nothing is above 0. An event whose points lack one of these columns stays as it is.
    """
    if not {"x", "y", "energy"} <= event.point.keys():
        return event
    place = torch.stack([event.index("point").double(), *(event.point[name].double() for name in "xy")], dim=1)
    towers, own = torch.unique(place, dim=0, return_inverse=True)
    total = torch.zeros(len(towers), dtype=torch.float64).index_add(0, own, event.point["energy"].double())
    at, near = fixed_radius(towers[:, 1:], reach, _NEAR, towers[:, 0].long())
    around = total.index_add(0, at, total[near])
    most = total.scatter_reduce(0, at, total[near], "amax")
    peak = torch.where((total > 0) & (most > 0), total / most.where(most > 0, 1.0), 0.0)
    found = {"tower": total, "around": around, "peak": peak}
    return event.with_columns("point", **{name: values[own].float() for name, values in found.items()})
