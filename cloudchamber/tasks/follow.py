"""Track following as a source of tracks: passes over the hits, each on those that the ones before it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cloudchamber.data.features import layer_key, true_pairs
from cloudchamber.data.shapes import directions
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.follow import (
    BINS,
    DIRECTIONS,
    FIELD,
    LAYER,
    LENGTHS,
    NEXT,
    NODES,
    PATHS,
    TRACKS,
    Pass,
    cells,
    complete_all,
    field_at,
    follow_pairs,
    measure_density,
    measure_field,
    memory,
    radial,
    rows,
    take_best,
)  # fmt: skip
from cloudchamber.physics import SPEED_OF_LIGHT, perigee
from cloudchamber.tasks.layers import (
    SHAPE,
    first_layers,
    found_particles,
    hits_of,
    likeliest,
    or_after,
    shapes,
    true_perigee,
)
from cloudchamber.tasks.tracks import track_pairs

Array = NDArray[Any]

#: What a track that was followed is known by, of which a task of kind "quality" judges it.
FOLLOWED = (
    "chi2", "ndf", "hits", "pt", "eta", "d0", "z0", "worst", "score", "missed", "pass", "begins", "ends", "layers",
    "precise",
)  # fmt: skip

_FOUND = ("chi2", "worst", "score", "missed", "begins", "ends", "layers", "precise")  # of these ``TRACKS`` has itself
_TABLES = ("onward", "seed", "inward")
_RARE, _RARE_SEED = 0.003, 0.02  # share of the transitions from a layer below which one is left out
UNIT = SPEED_OF_LIGHT * 2e-3  # GeV / mm, of curvature times pT in 2 T
_ROUNDS = 3  # of the measurement of the field, at most
_UNLIKELY = 0.005  # share of the tracks, at either end of the directions that a cluster tells, that is given up
_SETTLED = 0.05  # change of the field from which another round follows
_NARROW = 1 / 4  # of the length along the beam of the first pass: where the tracks begin that measure the field
_PATHS = 50_000  # memory for so many at first


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """Settings of ``Follow``, one value per pass.

    ``pt``: least transverse momentum (GeV). ``z0``: how far from the origin along the beam tracks begin at most, and
    ``d0``: width of their impact parameters (mm). ``pairs``: so many pairs of layers are begun with, those with which
    most of the particles begin that are not found yet. ``seed_chi2``, ``chi2``: largest chi2 of a third, of a further
    hit (two degrees of freedom). ``hits``: least number on a path. ``score``: its least log likelihood ratio.
    ``holes``: layers it may miss. ``shared``: hits that it may lose to a better one.

    ``worth``, one value for all passes: so many particles must be found from a pair of layers per thousand pairs of
    hits that are tried there; else it costs more than it brings.
    """

    kind: Literal["follow"] = "follow"
    pt: tuple[float, ...] = (0.6, 0.25, 0.1, 0.1)
    z0: tuple[float, ...] = (150.0, 200.0, 200.0, 600.0)
    d0: tuple[float, ...] = (0.15, 0.3, 1.0, 100.0)
    pairs: tuple[int, ...] = (16, 16, 16, 49)
    seed_chi2: tuple[float, ...] = (9.0, 12.0, 12.0, 12.0)
    chi2: tuple[float, ...] = (16.0, 20.0, 20.0, 20.0)
    hits: tuple[int, ...] = (7, 5, 4, 4)
    score: tuple[float, ...] = (14.0, 8.0, 5.0, 4.0)
    holes: tuple[int, ...] = (1, 1, 1, 1)
    shared: tuple[int, ...] = (0, 1, 1, 1)
    worth: float = 0.7


class Follow(nn.Module):
    """Follows tracks through the layers of a detector: no network, but what it must know is learned from events.

    Learned are the places of the layers, which of them follow one another on tracks, with which two layers those tracks
    begin that a pass is there for, and what the shape of a cluster tells of the direction of its track. Where there are
    cells (``cell.point``, ``u``, ``v``: the channels of each hit), pairs of hits that it speaks against are left out.
    """

    evidence = FOLLOWED
    keys: Tensor  # of the layers, sorted
    shape: Tensor  # (layers, 8), the first columns of ``LAYER``
    after: Tensor  # (layers, 3, most), ``onward``, ``seed`` and ``inward`` of ``LAYER``
    directions: Tensor  # (layers, 4, LENGTHS), ``DIRECTIONS`` of ``LAYER``
    begin: Tensor  # (pairs, 3): pass, and two rows of ``keys``

    def __init__(self, config: FollowConfig) -> None:
        super().__init__()
        self.config = config
        names = [f.name for f in fields(config) if f.name not in ("kind", "worth")]
        for name in names:
            expected, found = len(config.pt), len(getattr(config, name))
            if found != expected:
                raise UserError(f"graph.{name}: expected {expected} values as in graph.pt, one per pass, found {found}")
        self.passes = [
            Pass(UNIT / pt, UNIT, z0, d0, seed_chi2, chi2, hits, score, holes, shared)
            for pt, z0, d0, seed_chi2, chi2, hits, score, holes, shared in zip(
                *(getattr(config, name) for name in names if name != "pairs"), strict=True
            )
        ]
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("shape", torch.zeros((0, 8), dtype=torch.float64))
        self.register_buffer("after", torch.zeros((0, 3, NEXT), dtype=torch.int64))
        self.register_buffer("directions", torch.zeros((0, 4, LENGTHS), dtype=torch.float64))
        self.register_buffer("begin", torch.zeros((0, 3), dtype=torch.int64))

    def fit(self, events: Sequence[Event]) -> None:
        """Learn the layers, their order on tracks, and pass after pass where to begin, from events with truth."""
        self.keys = torch.unique(torch.cat([layer_key(event) for event in events]))
        layer = [torch.searchsorted(self.keys, layer_key(event)).numpy() for event in events]
        self.shape = torch.from_numpy(shapes(events, layer, len(self.keys)))
        pairs = [tuple(ends.numpy() for ends in true_pairs(event)) for event in events]
        count = np.zeros((len(self.keys),) * 2)
        for where, (inner, outer) in zip(layer, pairs, strict=True):
            np.add.at(count, (where[inner], where[outer]), 1)
        np.fill_diagonal(count, 0)
        tables = (likeliest(or_after(count), _RARE), likeliest(count, _RARE_SEED), likeliest(or_after(count.T), _RARE))
        self.after = torch.from_numpy(np.stack(tables, axis=1))
        self.directions = torch.from_numpy(directions(events, layer, pairs, self.shape[:, 0].numpy() > 0, _UNLIKELY))
        self.begin, parameters = self.begin[:0], [true_perigee(event) for event in events]
        # Particles that a pass before is there for.
        earlier = [np.zeros(event.rows("object"), bool) for event in events]
        for number, size in enumerate(self.config.pairs):
            count = np.zeros_like(count)
            for event, where, ends, true, done in zip(events, layer, pairs, parameters, earlier, strict=True):
                track, mine = self._tracks(_bare(event))[0], self.passes[number].covers(*true)
                np.add.at(count, first_layers(event, where, ends, track, mine & ~done), 1)
                done |= mine
            order = np.argsort(-count, axis=None, kind="stable")[:size]
            order = order[count.ravel()[order] > len(events)]
            rows = np.stack([np.full(len(order), number), *np.unravel_index(order, count.shape)], axis=1)
            self.begin = torch.cat([self.begin, torch.from_numpy(rows)])
            good, tried = np.zeros(len(self.begin)), np.zeros(len(self.begin))
            for event in events:
                track, _, row, pairs_tried = self._tracks(_bare(event))
                good += np.bincount(row[found_particles(event, track)[1]], minlength=len(good))
                tried += pairs_tried
            worthy = (self.begin[:, 0].numpy() < number) | (good > self.config.worth * 1e-3 * tried)
            self.begin = self.begin[torch.from_numpy(worthy)]

    def limit(self, passes: int) -> None:
        """Make only the first so many passes from now on: faster; what the others are there for is not found."""
        if passes > len(self.passes):
            raise UserError(f"passes: expected at most {len(self.passes)}, which the model has, found {passes}")
        self.passes = self.passes[:passes]

    def find(self, event: Event) -> Event:
        """The tracks: ``point.id``, ``point.object``, and in ``object`` the columns ``FOLLOWED``."""
        if len(event) != 1:
            return batch([self.find(part) for part in unbatch(event)])
        track, found, begun, _ = self._tracks(event)
        columns = {name: found[name] for name in _FOUND}
        columns["pass"] = self.begin.numpy()[begun, 0]
        with np.errstate(all="ignore"):  # of a path that the filter could not go back on
            columns |= {"ndf": 2 * found["fitted"] - 5, **_perigee(found["state"])}
            objects = {name: torch.from_numpy(column.astype(np.float32)) for name, column in columns.items()}
        objects["hits"] = torch.from_numpy(found["hits"].copy())
        point = {"id": event.point["id"], "object": torch.from_numpy(track)}
        count = dict.fromkeys(event.count, torch.tensor([0])) | {"point": event.count["point"]}
        count |= {"scene": torch.tensor([1]), "object": torch.tensor([len(found)])}
        return Event(point=point, object=objects, scene=event.scene, count=count)

    def forward(self, event: Event) -> Event:
        """The event with edges between hits that follow one another on a track."""
        return track_pairs(event, self.find(event))

    def stages(self, event: Event) -> dict[str, Event]:
        """The edges along the tracks of the first pass, of the first two, and so on, without the last."""
        found, stages = self.find(event), {}
        number = torch.cat([found.object["pass"], torch.tensor([torch.inf])])[found.point["object"]]
        for last in range(len(self.passes) - 1):
            track = torch.where(number <= last, found.point["object"], -1)
            name = f"passes 1-{last + 1}" if last else "pass 1"
            stages[name] = track_pairs(event, found.with_columns("point", object=track))
        return stages

    def _tracks(self, event: Event) -> tuple[Array, Array, Array, Array]:
        """Track of each hit, -1 for none; the tracks, rows of ``TRACKS``, and with which row of ``begin`` they began.

        Last the number of pairs of hits that were tried in each row of ``begin``.
        """
        layers = np.zeros(len(self.keys), LAYER)
        columns = *self.shape.T, *self.after.unbind(1), *self.directions.unbind(1)
        for name, column in zip((*SHAPE, *_TABLES, *DIRECTIONS), columns, strict=True):
            layers[name] = column.numpy()
        hits, known = hits_of(event, self.keys.numpy())
        order, start = cells(layers, hits)
        hits, place, track = rows(hits, order), known[order], np.full(event.rows("point"), -1)
        paths, tracks, buffers = np.zeros(_PATHS, PATHS), np.zeros(len(hits), TRACKS), memory()
        measure_density(layers, start)
        self._measure_field(layers, hits, start, paths, tracks, buffers)
        found, number, tried = [], 0, []
        for row, limits in enumerate(self.passes):
            shared, first = (layers, hits, start, *buffers), number
            for inner, outer in self.begin[self.begin[:, 0] == row, 1:].numpy():
                before = number
                paths, number, pairs = _take(inner, outer, limits, paths, tracks, number, shared)
                tried.append(pairs)
                found.append(number - before)
            measure_density(layers, _starts(start, hits["track"] < 0))
            complete_all(first, number, tracks, UNIT, *shared)
            track[place], free = hits["track"], hits["track"] < 0
            start, hits, place = _starts(start, free), rows(hits, np.flatnonzero(free)), place[free]
        return track, tracks[:number], np.repeat(np.arange(len(found)), found), np.array(tried, np.int64)

    def _measure_field(
        self, layers: Array, hits: Array, start: Array, paths: Array, tracks: Array, buffers: tuple[Array, Array]
    ) -> None:
        """Fill ``field``, ``radial`` and ``across`` of the layers, as the stiffest forward tracks show them.

        They begin with a cylinder and a disc in the first pass. Where the field is far from even, the first ones are
        cut short, and show it near the middle alone: so there are ``_ROUNDS``, until it is the one they were found in.
        """
        reach = np.abs(hits["z"]).max(initial=1.0)
        middle = layers["low"][:, None] + (layers["high"] - layers["low"])[:, None] * (np.arange(BINS) + 0.5) / BINS
        z = np.where(layers["disc"][:, None], layers["at"][:, None], middle)
        begin = self.begin[self.begin[:, 0] == 0, 1:].numpy()
        begin = begin[layers["disc"][begin[:, 0]] != layers["disc"][begin[:, 1]]]
        layers["field"], before = 1.0, np.ones(NODES)
        limits = self.passes[0]._replace(z0=self.passes[0].z0 * _NARROW)
        for _ in range(_ROUNDS):
            number = 0
            shared = layers, hits, start, *buffers
            for inner, outer in begin:
                paths, number, _ = _take(inner, outer, limits, paths, tracks, number, shared)
            if number == 0:
                return
            field, layers["across"] = measure_field(rows(hits, np.flatnonzero(hits["track"] >= 0)), reach)
            layers["field"], layers["radial"] = field_at(field, reach, z), field_at(radial(field, reach), reach, z)
            hits["track"] = -1
            if np.abs(field - before).max() < _SETTLED:
                return
            before = field


def _bare(event: Event) -> Event:
    """The event without cells: where tracks begin is learned for those, too, in which there are none."""
    return event.with_level("cell", {})


def _take(
    inner: int, outer: int, limits: Pass, paths: Array, tracks: Array, number: int, shared: tuple[Array, ...]
) -> tuple[Array, int, int]:
    """Take the best tracks that begin in two layers: ``paths``, grown where they must be, the tracks there are now, and
    how many pairs of hits were tried."""
    while (result := follow_pairs(inner, outer, limits, paths, *shared))[0] < 0:
        paths = np.zeros(2 * len(paths), PATHS)
    return paths, take_best(paths[: result[0]], limits, tracks, number, *shared), result[1]


def _starts(start: Array, kept: Array) -> Array:
    """The first place of each cell among the hits that are kept, given that among all."""
    places: Array = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)
    return places[start]


def _perigee(state: Array) -> dict[str, Array]:
    """Parameters where a track that flies inwards is nearest to the beam line."""
    x, y, cosine, sine, bend, z, slope = state[:, :7].T
    pt = UNIT * state[:, FIELD] / np.maximum(np.abs(bend), 1e-9)
    found = perigee(x, y, z, -pt * cosine, -pt * sine, -pt * slope, np.sign(bend))
    return {"pt": pt, "eta": found.eta, "d0": found.d0, "z0": found.z0}
