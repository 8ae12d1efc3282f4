"""Tracks: what a tracking task predicts, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cloudchamber.data.resolution import hit_errors
from cloudchamber.event import Event
from cloudchamber.ops import segment_max, segment_mean
from cloudchamber.physics import fit_helices

Array = NDArray[Any]

#: chi2 above which a hit does not count in the last fit of its track: one right hit in 20,000, were errors Gaussian.
OUTLIER = 20.0

#: What the edges say of a track: how many join its own hits, per hit; their mean and least logit; how many likely edges
#: leave it, and the largest logit of those that leave it.
EVIDENCE = ("joined", "mean_logit", "least_logit", "rivals", "rival_logit")

_FITTED = ("chi2", "ndf", "hits", "pt", "eta", "d0", "z0")

#: What is known of a track that was made of edges.
JOINED = (*_FITTED, *EVIDENCE)

#: What is known of a track that was gathered in a learned space: the root mean square distance of its hits from their
#: mean there; and ``softplus`` of the largest logit of beta, or the distance of its influencers from that mean.
GATHERED = (*_FITTED, "worst", "extent", "core")


def evidence(track: Array, sender: Array, receiver: Array, logit: Array) -> dict[str, Tensor]:
    """Columns ``EVIDENCE`` of every track, float32 ``(tracks,)``; ``track`` (points,), the rest ``(edges,)``.

    Logits are limited to +-12, which is also what stands where there is no edge.
    """
    tracks = int(track.max(initial=-1)) + 1
    logit = np.clip(logit, -12, 12)
    first, second = track[sender], track[receiver]
    own = (first == second) & (first >= 0)
    joined = np.bincount(first[own], minlength=tracks)
    mean = np.bincount(first[own], logit[own], minlength=tracks) / np.maximum(joined, 1)
    least, rival, rivals = np.full(tracks, 12.0), np.full(tracks, -12.0), np.zeros(tracks)
    np.minimum.at(least, first[own], logit[own])
    for end in (first, second):
        leaves = ~own & (end >= 0)
        np.maximum.at(rival, end[leaves], logit[leaves])
        rivals += np.bincount(end[leaves & (logit > 0)], minlength=tracks)
    hits = np.maximum(np.bincount(track[track >= 0], minlength=tracks), 1)
    columns = (joined / hits, mean, least, rivals, rival)
    return {name: torch.from_numpy(c.astype(np.float32)) for name, c in zip(EVIDENCE, columns, strict=True)}


def gathering(track: Tensor, space: Tensor, first: Tensor, tracks: int) -> dict[str, Tensor]:
    """Columns ``extent`` and ``core``, see ``GATHERED``, of every track, float32 ``(tracks,)``.

    ``track`` (points,), -1 for none; ``space`` (points, dimensions); ``first``: the logits of beta (points,), or the
    influencers (points, dimensions).
    """
    own = torch.nonzero(track >= 0)[:, 0]
    track, space, first = track[own], space[own], first[own]
    mean = segment_mean(space, track, tracks)[track]

    def distance(places: Tensor) -> Tensor:
        return segment_mean((places - mean).square().sum(dim=1, keepdim=True), track, tracks).sqrt()

    core = distance(first) if first.dim() == 2 else segment_max(functional.softplus(first)[:, None], track, tracks)
    return {"extent": distance(space)[:, 0], "core": core[:, 0]}


def fitted_tracks(event: Event, track: Tensor, extra: Mapping[str, Tensor] | None = None) -> Event:
    """The prediction that ``track`` (points,) makes of an event: tracks numbered 0, 1, ... or -1, with fitted helices.

    Columns: ``point.id``, ``point.object``; in ``object`` those of ``HelixFit.columns``, ``hits`` and the ``extra``
    ones; ``scene`` as it was. Parameters are NaN where fewer than three hits or a degenerate fit give none.
    """
    event, track = event.to("cpu"), track.cpu()
    tracks = int(track.max()) + 1 if len(track) else 0
    hits = torch.bincount(track[track >= 0], minlength=tracks)
    x, y, z = (event.point[name].numpy() for name in "xyz")
    fit = fit_helices(x, y, z, track.numpy(), tracks, **hit_errors(event.point))
    objects = {name: torch.from_numpy(np.asarray(column)) for name, column in fit.items()} | dict(extra or {})
    number = torch.zeros(tracks, dtype=torch.int64)
    kept = track >= 0
    number[track[kept]] = event.index("point")[kept]
    if len(event) > 1 and tracks:  # tracks of one event must be neighbours
        order = torch.argsort(number, stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(tracks)
        track = torch.where(kept, place[track.clamp(min=0)], -1)
        objects, hits, number = {name: column[order] for name, column in objects.items()}, hits[order], number[order]
    count = {**event.count, "object": torch.bincount(number, minlength=len(event))}
    count["edge"], count["cell"] = torch.zeros_like(count["point"]), torch.zeros_like(count["point"])
    point = {"id": event.point["id"], "object": track}
    return Event(point=point, object={**objects, "hits": hits}, scene=event.scene, count=count)


def without_outliers(event: Event, found: Event) -> Event:
    """The prediction ``found``, its tracks fitted without hits whose chi2 is above ``OUTLIER``: see ``helix_fit``.

    The hits stay on their tracks. Tracks that are fitted already, and have no such hit, keep their fit.
    """
    fitted = found.object["worst"] <= OUTLIER if "sigma_pt" in found.object else torch.zeros(found.rows("object")) > 0
    doubtful = torch.nonzero(~fitted)[:, 0]
    place = torch.full((found.rows("object") + 1,), -1)
    place[doubtful] = torch.arange(len(doubtful))
    track = place[found.point["object"]]
    hits = torch.nonzero(track >= 0)[:, 0]
    point = {name: column[hits] for name, column in event.point.items()}
    x, y, z = (point[name].numpy() for name in "xyz")
    fit = fit_helices(x, y, z, track[hits].numpy(), len(doubtful), outlier=OUTLIER, **hit_errors(point))
    nothing = torch.full((found.rows("object"),), torch.nan)
    columns = {name: found.object.get(name, nothing).clone() for name in fit}
    for name, column in fit.items():
        columns[name][doubtful] = torch.from_numpy(column)
    return found.with_columns("object", **columns)


def track_pairs(event: Event, predicted: Event) -> Event:
    """The event with an edge between hits that follow one another, outward from the origin, on a predicted track."""
    track = predicted.point["object"].numpy()
    distance = np.sum([event.point[name].double().numpy() ** 2 for name in "xyz"], axis=0)
    order = np.lexsort((distance, track))
    order = order[track[order] >= 0]
    follows = track[order[1:]] == track[order[:-1]]
    pairs = torch.from_numpy(np.stack([order[:-1][follows], order[1:][follows]]))
    return event.with_level("edge", {"sender": pairs[0], "receiver": pairs[1]})
