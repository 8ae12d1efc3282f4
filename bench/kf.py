"""The Kalman fit of ACTS as a peer of the helix fit: parameters and errors of given track candidates."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import acts
import numpy as np
import torch
from acts import UnitConstants as u
from acts import examples
from numpy.typing import NDArray

from bench.acts_io import Clock, geometry
from cloudchamber.data.resolution import hit_errors
from cloudchamber.event import Event

Float = NDArray[np.float64]

VOLUMES = (7, 8, 9, 12, 13, 14, 16, 17, 18)
NAMES = ("d0", "z0", "phi", "eta", "pt")


class _Candidates(examples.IReader):  # type: ignore[misc]
    """Hands hits and candidates to ACTS: "subset", "measurements" and "candidates"."""

    def __init__(
        self,
        rows: NDArray[np.int64],
        local: NDArray[np.float64],
        variance: NDArray[np.float64],
        tracks: list[list[int]],
    ) -> None:
        super().__init__("Candidates", acts.logging.WARNING)
        modules = geometry().identifiers
        self.containers = []
        for _ in range(2):  # the subset refers to the first, which must outlive the event; the second is moved
            container = examples.MeasurementContainer()
            container.reserve(len(rows))
            for row, place, error in zip(rows.tolist(), local[:, :2].tolist(), variance.tolist(), strict=True):
                container.emplaceMeasurement(modules[row], (0, 1), place, error)
            self.containers.append(container)
        self.count, self.tracks = len(rows), tracks
        kinds = {"subset": examples.MeasurementSubset, "measurements": examples.MeasurementContainer}
        kinds["candidates"] = examples.ProtoTrackContainer
        self.handles = {name: examples.WriteDataHandle(self, kind, name) for name, kind in kinds.items()}
        for name, handle in self.handles.items():
            handle.initialize(name)

    def availableEvents(self) -> tuple[int, int]:
        return 0, 1

    def read(self, context: Any) -> Any:
        self.handles["subset"](context, examples.MeasurementSubset(self.containers[0], range(self.count)))
        self.handles["measurements"](context, self.containers[1])
        candidates = examples.ProtoTrackContainer()
        for hits in self.tracks:
            candidates.append(examples.ProtoTrack(hits))
        self.handles["candidates"](context, candidates)
        return examples.ProcessCode.SUCCESS


class _Fitted(examples.IAlgorithm):  # type: ignore[misc]
    """Keeps the hits, parameters, covariances and chi2 of the tracks "fitted"."""

    def __init__(self) -> None:
        super().__init__("Fitted", acts.logging.WARNING)
        self.handle = examples.ReadDataHandle(self, examples.ConstTrackContainer, "fitted")
        self.handle.initialize("fitted")
        self.hits: list[list[int]] = []
        self.parameters, self.covariance, self.chi2 = np.zeros((0, 6)), np.zeros((0, 6, 6)), np.zeros(0)

    def execute(self, context: Any) -> Any:
        tracks = self.handle(context.eventStore)
        index = examples.IndexSourceLink.fromSourceLink
        for track in tracks:
            states = [s for s in track.trackStatesReversed if s.typeFlags.isMeasurement or s.typeFlags.isOutlier]
            self.hits.append([index(state.uncalibratedSourceLink).index() for state in states])
        if self.hits:
            self.parameters, self.chi2 = np.array(tracks.parameters), np.array(tracks.chi2)
            self.covariance = np.array(tracks.covariance).reshape(-1, 6, 6)
        return examples.ProcessCode.SUCCESS


def kalman_fit(event: Event, found: Event) -> tuple[Event, float]:
    """The tracks of ``found`` with the parameters that ACTS's Kalman fit gives them, and its CPU seconds.

    The errors of the hits are those of ``hit_errors``, the material is that of the geometry, the particles are pions;
    no hit is left out. The start comes from all hits of the candidate; from its first three, ACTS's default, the filter
    loses its way at |eta| > 3. Columns of the tracks as ``found`` has; charge is 0 where there is no fit. The time is
    that of the fit alone.
    """
    rows, local = geometry().local(event)
    errors = hit_errors({name: column.numpy() for name, column in event.point.items()})
    variance = np.stack([errors["sigma_rphi"], np.maximum(errors["sigma_r"], errors["sigma_z"])], axis=1) ** 2
    reader, out, clocks = _Candidates(rows, local, variance, _hits(event, found)), _Fitted(), (Clock(0), Clock(1))
    with tempfile.TemporaryDirectory() as directory:  # ACTS leaves timing.csv there
        sequencer = examples.Sequencer(
            events=1, numThreads=1, logLevel=acts.logging.WARNING, trackFpes=False, outputDir=directory
        )
        sequencer.addReader(reader)
        for step in (*_start(), clocks[0], _fit(), clocks[1], out):
            sequencer.addAlgorithm(step)
        sequencer.run()
    return _event(found, out), clocks[1].now[1] - clocks[0].now[1]


def _hits(event: Event, found: Event) -> list[list[int]]:
    """The rows of the hits of each track, outward from the origin."""
    track = found.point["object"].numpy()
    distance = np.sum([event.point[name].double().numpy() ** 2 for name in "xyz"], axis=0)
    order = np.lexsort((distance, track))
    bounds = np.searchsorted(track[order], np.arange(found.rows("object") + 1))
    return [order[a:b].tolist() for a, b in pairwise(bounds) if b - a >= 3]


def _start() -> list[Any]:
    """Space points, the seed of each candidate, and the parameters of each seed."""
    level, world = acts.logging.FATAL, geometry()
    points = examples.SpacePointMaker(
        level=level,
        trackingGeometry=world.tracking,
        inputMeasurements="subset",
        outputSpacePoints="points",
        geometrySelection=[acts.GeometryIdentifier(volume=volume) for volume in VOLUMES],
    )
    seeds = examples.ProtoTracksToSeeds(
        level=level,
        inputProtoTracks="candidates",
        inputSpacePoints="points",
        outputSeeds="seeds",
        outputProtoTracks="seeded",
    )
    parameters = examples.TrackParamsEstimationAlgorithm(
        level=level,
        inputSeeds="seeds",
        inputProtoTracks="seeded",
        outputTrackParameters="start",
        outputSeeds="estimated",
        outputProtoTracks="started",
        trackingGeometry=world.tracking,
        magneticField=world.field,
        initialSigmas=[1 * u.mm, 1 * u.mm, 1 * u.degree, 1 * u.degree, 0 * u.e / u.GeV, 1 * u.ns],
        initialSigmaQoverPt=0.1 * u.e / u.GeV,
        initialSigmaPtRel=0.1,
        initialVarInflation=[10.0] * 6,
        spacePointSelection=examples.SeedSpacePointSelection.All,
        particleHypothesis=acts.ParticleHypothesis.pion,
    )
    return [points, seeds, parameters]


def _fit() -> Any:
    world = geometry()
    fitter = examples.makeKalmanFitterFunction(
        world.tracking,
        world.field,
        multipleScattering=True,
        energyLoss=True,
        reverseFilteringMomThreshold=0.0,
        reverseFilteringCovarianceScaling=100.0,
        freeToBoundCorrection=examples.FreeToBoundCorrection(False),
        chi2Cut=float("inf"),
        useJosephFormulation=False,
        level=acts.logging.FATAL,
    )
    return examples.TrackFittingAlgorithm(
        level=acts.logging.FATAL,
        inputMeasurements="measurements",
        inputProtoTracks="started",
        inputInitialTrackParameters="start",
        inputClusters="",
        outputTracks="fitted",
        pickTrack=-1,
        fit=fitter,
        calibrator=examples.makePassThroughCalibrator(),
        linkForward=False,
        referenceSurface=acts.Surface.createPerigee(acts.Vector3(0, 0, 0)),
    )


def _event(found: Event, out: _Fitted) -> Event:
    """The tracks of ``found`` with the parameters of the fits; a fit belongs to the track of its first hit."""
    tracks = found.rows("object")
    good = np.flatnonzero(out.parameters[:, 4])  # others have not reached the perigee
    track = found.point["object"].numpy()[np.array([out.hits[row][0] for row in good], np.int64)]
    d0, z0, phi, theta, ratio = out.parameters[good].T[:5]
    # d(eta) / d(theta) = -1 / sin(theta); pT = sin(theta) / |q / p|
    columns = {"d0": d0, "z0": z0, "phi": phi, "eta": -np.log(np.tan(theta / 2)), "pt": np.sin(theta) / np.abs(ratio)}
    jacobian = np.zeros((len(track), 5, 6))
    for row in range(3):
        jacobian[:, row, row] = 1
    jacobian[:, 3, 3] = -1 / np.sin(theta)
    jacobian[:, 4, 3], jacobian[:, 4, 4] = np.cos(theta) / np.abs(ratio), -np.sin(theta) / (ratio * np.abs(ratio))
    variance = np.einsum("nij,njk,nik->ni", jacobian, out.covariance[good], jacobian)
    with np.errstate(invalid="ignore"):
        columns |= dict(zip((f"sigma_{name}" for name in NAMES), np.sqrt(variance).T, strict=True))
    columns |= {"charge": np.sign(ratio), "chi2": out.chi2[good]}
    result: Mapping[str, NDArray[np.float32]] = {name: np.full(tracks, np.nan, np.float32) for name in columns}
    result["charge"][:] = 0
    for name, column in columns.items():
        result[name][track] = column
    objects = {name: torch.from_numpy(column) for name, column in result.items()}
    return Event(
        point=found.point, object=objects | {"hits": found.object["hits"]}, scene=found.scene, count=found.count
    )
