"""The combinatorial Kalman filter of ACTS as a peer: grid-triplet seeds, track finding, greedy ambiguity resolution.

    python bench/ckf.py DIR --config D --events 4

reads events of any format that the library reads and prints the rates and the cost. Truth is used to score only. The
algorithms are built by hand, because those of ``acts.examples.reconstruction`` add steps that need truth.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import acts
import numpy as np
import torch
from acts import UnitConstants as u
from acts import examples
from numpy.typing import NDArray

from cloudchamber.data import detector, open_events
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics.match import Match, Selection, efficiency, fake_rate, trackml_score

FIELD = 2.0  # tesla
PIXELS = [(8, range(2, 9, 2)), (7, range(2, 15, 2)), (9, range(2, 15, 2))]  # volume, layers that give space points

#: The steps whose time is counted: not the reading of the hits into ACTS, nor the reading of the tracks out.
STEPS = ("space points", "seeding", "parameters", "finding", "ambiguity")


@dataclass(frozen=True)
class Config:
    """What may be tuned: range in pT (GeV) and |eta|, fewest hits, middle radii of seeds (mm), seeds kept per point."""

    pt_min: float = 0.5
    eta_max: float = 4.0
    min_hits: int = 7
    middle: tuple[float, float] = (30.0, 180.0)
    seeds_per_point: int = 1


#: C has the middle radii that ACTS has by default, which lose tracks at 1.5 < |eta| < 2 and |eta| > 3.5. D widens them,
#: E keeps two seeds per space point, F goes down to 150 MeV and 5 hits, where one seed per space point is too few even
#: for stiff tracks; G keeps four, the most accurate and the slowest.
CONFIGS = {
    "C": Config(middle=(60.0, 120.0)),
    "D": Config(),
    "E": Config(seeds_per_point=2),
    "F": Config(pt_min=0.15, min_hits=5),
    "G": Config(pt_min=0.15, min_hits=5, seeds_per_point=4),
}


@dataclass(frozen=True)
class Result:
    """What one event gave.

    ``tracks``: an Event with ``point.id``, ``point.object``, and ``charge``, ``pt``, ``eta``, ``phi``, ``d0``, ``z0``,
    ``hits`` per track (units: see docs/architecture.md). ``seconds`` and ``cpu``: wall and CPU seconds per step, see
    ``STEPS``. ``cpu_total``: CPU seconds of all, the hand-over of hits and tracks through Python included.
    ``peak_memory``: of the whole process so far, bytes.
    """

    tracks: Event
    seconds: dict[str, float]
    cpu: dict[str, float]
    cpu_total: float
    peak_memory: int


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


class _Hits(examples.IReader):  # type: ignore[misc]
    """Hands the hits of one event to ACTS, as "measurement_subset"."""

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


class _Tracks(examples.IAlgorithm):  # type: ignore[misc]
    """Keeps the hits (rows) and perigee parameters of the tracks "tracks"."""

    def __init__(self) -> None:
        super().__init__("Tracks", acts.logging.WARNING)
        self.handle = examples.ReadDataHandle(self, examples.ConstTrackContainer, "tracks")
        self.handle.initialize("tracks")
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


class _Clock(examples.IAlgorithm):  # type: ignore[misc]
    """Reads the clocks (wall, CPU) between two steps: ACTS's own timing.csv has wall time only."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Clock{number}", acts.logging.WARNING)
        self.now = (0.0, 0.0)

    def execute(self, context: Any) -> Any:
        self.now = time.perf_counter(), time.process_time()
        return examples.ProcessCode.SUCCESS


class Ckf:
    """The finder: ``Ckf("D")(event)``; ``config`` is a name of ``CONFIGS`` or a ``Config``. One thread."""

    def __init__(self, config: str | Config = "D") -> None:
        if isinstance(config, str) and config not in CONFIGS:
            raise UserError(f"CKF configuration {config!r}: expected one of {', '.join(CONFIGS)}")
        self.config = CONFIGS[config] if isinstance(config, str) else config

    def __call__(self, event: Event) -> Result:
        """Find the tracks of one event (x, y, z, volume, layer, module of its hits). No truth is read.

        Raises ``UserError`` for hits that lie on no module of the generic detector, ``RuntimeError`` when ACTS fails.
        """
        rows, local = geometry().local(event)
        start = time.process_time()
        reader, out, clocks = _Hits(rows, local), _Tracks(), [_Clock(i) for i in range(len(STEPS) + 1)]
        steps = (*_seeding(self.config), *_finding(self.config), out)
        with tempfile.TemporaryDirectory() as directory:  # ACTS leaves timing.csv there
            sequencer = examples.Sequencer(
                events=1, numThreads=1, logLevel=acts.logging.WARNING, trackFpes=False, outputDir=directory
            )
            sequencer.addReader(reader)
            for clock, step in zip(clocks, steps, strict=True):
                sequencer.addAlgorithm(clock)
                sequencer.addAlgorithm(step)
            sequencer.run()
        spent = np.diff([clock.now for clock in clocks], axis=0).T.tolist()
        wall, cpu = (dict(zip(STEPS, row, strict=True)) for row in spent)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Result(_event(event, out.hits, out.parameters), wall, cpu, time.process_time() - start, memory)


def _seeding(config: Config) -> list[Any]:
    """Space points in the pixels, triplets of them, and the parameters of each triplet."""
    level, detector_acts = acts.logging.WARNING, geometry()
    layers = [acts.GeometryIdentifier(volume=v, layer=layer) for v, layers in PIXELS for layer in layers]
    points = examples.SpacePointMaker(
        level=level,
        trackingGeometry=detector_acts.tracking,
        inputMeasurements="measurement_subset",
        outputSpacePoints="spacepoints",
        geometrySelection=layers,
    )
    span = {f"deltaR{end}{which}": r for end, r in (("Min", 1.0), ("Max", 300.0)) for which in ("", "Top", "Bottom")}
    triplets = examples.GridTripletSeedingAlgorithm(
        level=level,
        inputSpacePoints="spacepoints",
        inputVertices="",
        outputSeeds="seeds",
        bFieldInZ=FIELD * u.T,
        minPt=config.pt_min * u.GeV,
        cotThetaMax=math.sinh(config.eta_max),
        impactMax=3 * u.mm,
        rMax=200 * u.mm,
        zMin=-2000 * u.mm,
        zMax=2000 * u.mm,
        collisionRegionMin=-250 * u.mm,
        collisionRegionMax=250 * u.mm,
        sigmaScattering=5.0,
        radLengthPerSeed=0.1,
        maxSeedsPerSpM=config.seeds_per_point,
        rMinMiddle=config.middle[0] * u.mm,
        rMaxMiddle=config.middle[1] * u.mm,
        **span,
    )
    parameters = examples.TrackParamsEstimationAlgorithm(
        level=level,
        inputSeeds="seeds",
        outputTrackParameters="parameters",
        outputSeeds="estimated",
        trackingGeometry=detector_acts.tracking,
        magneticField=detector_acts.field,
        initialSigmas=[1 * u.mm, 1 * u.mm, 1 * u.degree, 1 * u.degree, 0 * u.e / u.GeV, 1 * u.ns],
        initialSigmaQoverPt=0.1 * u.e / u.GeV,
        initialSigmaPtRel=0.1,
        initialVarInflation=[1.0] * 6,
        particleHypothesis=acts.ParticleHypothesis.pion,
    )
    return [points, triplets, parameters]


def _finding(config: Config) -> list[Any]:
    """The filter from each seed, outward and inward, and the choice among tracks that share hits."""
    finder, detector_acts = examples.TrackFindingAlgorithm, geometry()
    world = (detector_acts.tracking, detector_acts.field)
    level = acts.logging.FATAL  # at low pT extrapolation often ends early, and says so each time
    selector = acts.MeasurementSelector.Config([(acts.GeometryIdentifier(), ([], [15.0], [25.0], [2]))])
    tracks = acts.TrackSelector.Config(
        ptMin=config.pt_min * u.GeV,
        absEtaMax=config.eta_max,
        loc0Min=-4 * u.mm,
        loc0Max=4 * u.mm,
        minMeasurements=config.min_hits,
        maxHoles=2,
        maxOutliers=2,
    )
    finding = finder(
        level=level,
        measurementSelectorCfg=selector,
        inputMeasurements="measurement_subset",
        inputInitialTrackParameters="parameters",
        inputSeeds="estimated",
        outputTracks="candidates",
        findTracks=finder.makeTrackFinderFunction(*world, level),
        findTracksBrem=finder.makeBremTrackFinderFunction(*world, level),
        trackingGeometry=world[0],
        magneticField=world[1],
        twoWay=True,
        reverseSearch=False,
        seedDeduplication=True,
        stayOnSeed=True,
        trackSelectorCfg=tracks,
    )
    ambiguity = examples.GreedyAmbiguityResolutionAlgorithm(
        level=acts.logging.WARNING,
        inputTracks="candidates",
        outputTracks="tracks",
        maximumSharedHits=3,
        maximumIterations=1_000_000,
        nMeasurementsMin=config.min_hits,
    )
    return [finding, ambiguity]


def _event(event: Event, hits: list[list[int]], parameters: NDArray[np.float64]) -> Event:
    """Tracks as an Event. A hit of several tracks goes to the one with most hits, the first such."""
    owner = np.full(event.rows("point"), -1)
    for track in sorted(range(len(hits)), key=lambda track: (len(hits[track]), -track)):
        owner[hits[track]] = track
    d0, z0, phi, theta, ratio = parameters.T[:5]
    columns = {"charge": np.sign(ratio), "pt": np.sin(theta) / np.abs(ratio), "eta": -np.log(np.tan(theta / 2))}
    columns |= {"phi": phi, "d0": d0, "z0": z0}
    tracks = {name: torch.from_numpy(column.astype(np.float32)) for name, column in columns.items()}
    tracks["hits"] = torch.from_numpy(np.bincount(owner[owner >= 0], minlength=len(hits)))
    return Event(point={"id": event.point["id"], "object": torch.from_numpy(owner)}, object=tracks, scene=event.scene)


def score(results: Sequence[Result], events: Sequence[Event], config: Config) -> dict[str, float]:
    """Mean rates and cost per event: double majority, particles in the range of the configuration."""
    rows = []
    for result, event in zip(results, events, strict=True):
        match = Match.of(result.tracks, event)
        wide = Selection(pt_min=config.pt_min, eta_max=config.eta_max, min_hits=config.min_hits)
        core = Selection(pt_min=1.0, eta_max=2.5, radius_max=2.0, min_hits=7)
        wide_found, core_found = (efficiency(match, particles=s.particles(match, event)) for s in (wide, core))
        rows.append(
            {
                "efficiency": float(wide_found.value),
                "efficiency, primary, pT > 1 GeV, |eta| < 2.5": float(core_found.value),
                "fakes": float(fake_rate(match).value),
                "TrackML score": float(trackml_score(match)[0]),
                "tracks": result.tracks.rows("object"),
                **{f"CPU seconds, {step}": spent for step, spent in result.cpu.items()},
                "CPU seconds, these steps": sum(result.cpu.values()),
                "CPU seconds, hand-over included": result.cpu_total,
                "seconds, these steps": sum(result.seconds.values()),
                "peak memory (GB)": result.peak_memory / 1e9,
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def main() -> None:
    """Run a configuration on a directory of events and print means per event."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--config", choices=CONFIGS, default="D")
    parser.add_argument("--events", type=int, help="only the first N")
    arguments = parser.parse_args()
    finder, events = Ckf(arguments.config), list(open_events(arguments.directory)[: arguments.events])
    for name, value in score([finder(event) for event in events], events, finder.config).items():
        print(f"{name:48s}{value:10.4f}")


if __name__ == "__main__":
    main()
