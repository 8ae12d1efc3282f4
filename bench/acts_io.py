"""Hits into ACTS and tracks out of it, in memory; no truth is read."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import acts
import numpy as np
import torch
from acts import UnitConstants as u
from acts import examples
from numpy.typing import NDArray

from cloudchamber.data import detector
from cloudchamber.errors import UserError
from cloudchamber.event import Event

FIELD = 2.0  # tesla


@dataclass(frozen=True)
class Geometry:
    """The detector in ACTS: what must be kept alive, and its modules, sorted as in ``detector.load()``."""

    owner: Any
    tracking: Any
    field: Any
    identifiers: list[Any]
    rotation: NDArray[np.float64]
    centre: NDArray[np.float64]

    def local(self, event: Event) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The module of each hit, ``(hits,)``, and its local u, v, w = R^T (x - c) in mm, ``(hits, 3)``.

        The numbers of the modules may be TrackML's or ACTS's own (they differ in the end caps): those are taken that
        put the hits nearer to the centres of their modules. Raises ``UserError`` for hits that lie on no module.
        """
        table = detector.load()
        volume, layer, module = (event.point[name].numpy() for name in ("volume", "layer", "module"))
        position = np.stack([event.point[name].double().numpy() for name in ("x", "y", "z")], axis=1)
        choices = []
        for find in (table.rows, table.surface_rows):
            try:
                choices.append(find(volume, layer, module))
            except UserError as error:
                missing = error
        if not choices:
            raise missing
        rows = min(choices, key=lambda rows: np.linalg.norm(position - self.centre[rows], axis=1).sum())
        local = np.einsum("nji,nj->ni", self.rotation[rows], position - self.centre[rows])
        off = np.flatnonzero(np.abs(local[:, 2]) > 1.0)
        if len(off):
            name = f"volume {volume[off[0]]}, layer {layer[off[0]]}, module {module[off[0]]}"
            raise UserError(f"{len(off)} hits lie off their modules, the first one (row {off[0]}) off {name}")
        return rows, local


@cache
def geometry() -> Geometry:
    """The generic detector in its field of 2 T."""
    owner = examples.GenericDetector(logLevel=acts.logging.ERROR)
    tracking = owner.trackingGeometry()
    context = acts.GeometryContext.dangerouslyDefaultConstruct()
    surfaces = {k: s for k, s in tracking.geoIdSurfaceMap().items() if k.sensitive}
    numbers = np.array([(k.volume, k.layer, k.sensitive) for k in surfaces], dtype=np.int64)
    found = detector.load().surface_rows(*numbers.T)
    transforms = [surface.localToGlobalTransform(context) for surface in surfaces.values()]
    turns = [t.rotation for t in transforms]
    rotation = np.array([[[turn[i, j] for j in range(3)] for i in range(3)] for turn in turns])
    centre = np.array([[t.translation[i] for i in range(3)] for t in transforms])
    order = np.argsort(found)
    identifiers = list(surfaces)
    field = acts.ConstantBField(acts.Vector3(0, 0, FIELD * u.T))
    return Geometry(owner, tracking, field, [identifiers[i] for i in order], rotation[order], centre[order])


class Hits(examples.IReader):  # type: ignore[misc]
    """Hands the hits of one event to ACTS, as "measurement_subset"; ``rows`` and ``local``: see ``Geometry.local``."""

    def __init__(self, rows: NDArray[np.int64], local: NDArray[np.float64]) -> None:
        super().__init__("Hits", acts.logging.WARNING)
        modules = geometry().identifiers
        volume = detector.load().volume[rows]
        pitch = np.array([detector.READOUT.get(v, (0.0, 0.0, 0.0))[:2] for v in range(19)])
        variances = (pitch**2 / 12)[volume].tolist()
        self.measurements = examples.MeasurementContainer()
        self.measurements.reserve(len(rows))
        for row, place, variance in zip(rows.tolist(), local[:, :2].tolist(), variances, strict=True):
            self.measurements.emplaceMeasurement(modules[row], (0, 1), place, variance)
        self.count = len(rows)
        self.handle = examples.WriteDataHandle(self, examples.MeasurementSubset, "measurements")
        self.handle.initialize("measurement_subset")

    def availableEvents(self) -> tuple[int, int]:
        return 0, 1

    def read(self, context: Any) -> Any:
        # The subset refers to self.measurements, which must therefore outlive the event.
        self.handle(context, examples.MeasurementSubset(self.measurements, range(self.count)))
        return examples.ProcessCode.SUCCESS


class Tracks(examples.IAlgorithm):  # type: ignore[misc]
    """Keeps the hits (rows) and perigee parameters, ``(tracks, 6)``, of the tracks ``name``."""

    def __init__(self, name: str = "tracks") -> None:
        super().__init__(f"Tracks of {name}", acts.logging.WARNING)
        self.handle = examples.ReadDataHandle(self, examples.ConstTrackContainer, "tracks")
        self.handle.initialize(name)
        self.hits: list[list[int]] = []
        self.parameters = np.zeros((0, 6))

    def execute(self, context: Any) -> Any:
        tracks = self.handle(context.eventStore)
        index = examples.IndexSourceLink.fromSourceLink
        for track in tracks:
            states = [s for s in track.trackStatesReversed if s.typeFlags.isMeasurement and not s.typeFlags.isOutlier]
            self.hits.append([index(state.uncalibratedSourceLink).index() for state in states])
        if self.hits:
            self.parameters = np.array(tracks.parameters)
        return examples.ProcessCode.SUCCESS


class Clock(examples.IAlgorithm):  # type: ignore[misc]
    """Reads the clocks (wall, CPU) between two steps: ACTS's own timing.csv has wall time only."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Clock{number}", acts.logging.WARNING)
        self.now = (0.0, 0.0)

    def execute(self, context: Any) -> Any:
        self.now = time.perf_counter(), time.process_time()
        return examples.ProcessCode.SUCCESS


def tracks_event(event: Event, hits: list[list[int]], parameters: NDArray[np.float64]) -> Event:
    """Tracks, with ACTS's perigee parameters, as an Event; columns and units: see docs/architecture.md.

    A hit of several tracks goes to the one with most hits, the first such.
    """
    owner = np.full(event.rows("point"), -1)
    for track in sorted(range(len(hits)), key=lambda track: (len(hits[track]), -track)):
        owner[hits[track]] = track
    d0, z0, phi, theta, ratio = parameters.T[:5]
    columns = {"charge": np.sign(ratio), "pt": np.sin(theta) / np.abs(ratio), "eta": -np.log(np.tan(theta / 2))}
    columns |= {"phi": phi, "d0": d0, "z0": z0}
    tracks = {name: torch.from_numpy(column.astype(np.float32)) for name, column in columns.items()}
    tracks["hits"] = torch.from_numpy(np.bincount(owner[owner >= 0], minlength=len(hits)))
    return Event(point={"id": event.point["id"], "object": torch.from_numpy(owner)}, object=tracks, scene=event.scene)
