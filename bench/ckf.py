"""The combinatorial Kalman filter of ACTS as a peer: grid-triplet seeds, track finding, greedy ambiguity resolution.

    from bench.ckf import Ckf
    result = Ckf("F")(event)

takes events of any format that the library reads. No truth is read. The algorithms are built by hand, because those of
``acts.examples.reconstruction`` add steps that need truth. What each setting brings: ``bench/ckf_tuning.py``.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import acts
import numpy as np
from acts import UnitConstants as u
from acts import examples

from bench.acts_io import FIELD, Clock, Hits, Tracks, geometry, tracks_event
from cloudchamber.errors import UserError
from cloudchamber.event import Event

#: Volumes and their layers that give space points: hits in two dimensions, so short strips as well.
PIXELS = ((8, range(2, 9, 2)), (7, range(2, 15, 2)), (9, range(2, 15, 2)))
SHORT_STRIPS = ((13, range(2, 9, 2)), (12, range(2, 13, 2)), (14, range(2, 13, 2)))

#: The steps whose time is counted: not the reading of the hits into ACTS, nor the reading of the tracks out.
STEPS = ("space points", "seeding", "parameters", "finding", "ambiguity", "removal")


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What may be tuned in one pass over the hits; lengths in mm, momenta in GeV.

    ``pt_min``, ``eta_max``, ``impact``, ``min_hits``, ``holes``: the tracks that are looked for, ``impact`` being the
    largest impact parameter, ``seed_impact`` that of a seed. Seeds: ``layers`` give the space points, up to
    ``radius_max``; ``middle`` is the range in r of the middle one, ``gap`` the largest distance in r between two; they
    point to z within ``collision`` and deviate from a helix by at most ``scattering`` standard deviations of the
    scattering in ``radiation`` radiation lengths. Of those with one middle point the best ``seeds_per_point`` are kept,
    a mm of impact parameter costing ``impact_weight``. Track finding: ``chi2`` up to which a hit belongs to the track
    and up to which it is an outlier, ``branches`` per surface. ``shared``: hits that a track shares with better ones.
    """

    pt_min: float = 0.5
    eta_max: float = 4.0
    seed_impact: float = 3.0
    impact: float = 4.0
    min_hits: int = 7
    holes: int = 2
    layers: tuple[tuple[int, range], ...] = PIXELS
    radius_max: float = 200.0
    middle: tuple[float, float] = (30.0, 180.0)
    gap: float = 120.0
    collision: float = 200.0
    scattering: float = 2.0
    radiation: float = 0.05
    seeds_per_point: int = 1
    impact_weight: float = 100.0
    chi2: tuple[float, float] = (25.0, 40.0)
    branches: int = 1
    shared: int = 3


_SOFT = Pass(pt_min=0.15, min_hits=5, seeds_per_point=2)
_STRIPS = replace(
    _SOFT,
    pt_min=0.25,
    eta_max=2.7,
    layers=SHORT_STRIPS,
    radius_max=720.0,
    middle=(280.0, 640.0),
    gap=250.0,
    seed_impact=100.0,
    impact=200.0,
    seeds_per_point=1,
)

#: D and E look for pT > 0.5 GeV, E with two seeds per space point. F goes down to 150 MeV and 5 hits in one pass. G
#: finds the stiff tracks first, the soft ones among the hits left over, and at last those with fewer than three hits in
#: the pixels, from seeds of short strips: the best.
CONFIGS: dict[str, tuple[Pass, ...]] = {
    "D": (Pass(),),
    "E": (Pass(seeds_per_point=2),),
    "F": (_SOFT,),
    "G": (Pass(), replace(_SOFT, seed_impact=10.0, impact=20.0), _STRIPS),
}


@dataclass(frozen=True)
class Result:
    """What one event gave.

    ``tracks``: see ``acts_io.tracks_event``. ``seconds`` and ``cpu``: wall and CPU seconds per step, see ``STEPS``.
    """

    tracks: Event
    seconds: dict[str, float]
    cpu: dict[str, float]


class Ckf:
    """The finder: ``Ckf("D")(event)``; ``config`` is a name of ``CONFIGS`` or passes of one's own. One thread."""

    def __init__(self, config: str | Sequence[Pass] = "D") -> None:
        if isinstance(config, str) and config not in CONFIGS:
            raise UserError(f"CKF configuration {config!r}: expected one of {', '.join(CONFIGS)}")
        self.passes = tuple(CONFIGS[config] if isinstance(config, str) else config)

    def __call__(self, event: Event) -> Result:
        """Find the tracks of one event (x, y, z, volume, layer, module of its hits). No truth is read.

        Raises ``UserError`` for hits that lie on no module of the generic detector, ``RuntimeError`` when ACTS fails.
        """
        steps = [step for number, one in enumerate(self.passes) for step in _steps(one, number)]
        clocks = [Clock(number) for number in range(len(steps) + 1)]
        found = [Tracks(f"tracks{number}") for number in range(len(self.passes))]
        with tempfile.TemporaryDirectory() as directory:  # ACTS leaves timing.csv there
            sequencer = examples.Sequencer(
                events=1, numThreads=1, logLevel=acts.logging.WARNING, trackFpes=False, outputDir=directory
            )
            hits = Hits(*geometry().local(event))
            sequencer.addReader(hits)
            for clock, (_, step) in zip(clocks, steps, strict=False):
                sequencer.addAlgorithm(clock)
                sequencer.addAlgorithm(step)
            for last in (clocks[-1], *found):
                sequencer.addAlgorithm(last)
            sequencer.run()
        spent = {name: np.zeros(2) for name in STEPS}
        for (name, _), times in zip(steps, np.diff([clock.now for clock in clocks], axis=0), strict=True):
            spent[name] += times
        wall, cpu = ({name: float(times[clock]) for name, times in spent.items()} for clock in (0, 1))
        rows = [track for one in found for track in one.hits]
        return Result(tracks_event(event, rows, np.concatenate([one.parameters for one in found])), wall, cpu)


def _steps(one: Pass, number: int) -> Iterator[tuple[str, Any]]:
    """The algorithms of a pass, each with its name in ``STEPS``; a later pass first removes the hits used before."""
    hits = f"measurement_subset{number}" if number else "measurement_subset"
    if number:
        before = f"measurement_subset{number - 1}" if number > 1 else "measurement_subset"
        yield (
            "removal",
            examples.MeasurementFilterAlgorithm(
                level=acts.logging.WARNING,
                inputTracks=f"tracks{number - 1}",
                inputMeasurementSubset=before,
                outputMeasurementSubset=hits,
            ),
        )
    yield from zip(STEPS[:3], _seeding(one, hits, str(number)), strict=True)
    yield from zip(STEPS[3:5], _finding(one, hits, str(number)), strict=True)


def _seeding(one: Pass, hits: str, number: str) -> list[Any]:
    """Space points, triplets of them, and the parameters of each triplet."""
    level, world = acts.logging.WARNING, geometry()
    layers = [acts.GeometryIdentifier(volume=v, layer=layer) for v, layers in one.layers for layer in layers]
    points = examples.SpacePointMaker(
        level=level,
        trackingGeometry=world.tracking,
        inputMeasurements=hits,
        outputSpacePoints=f"spacepoints{number}",
        geometrySelection=layers,
    )
    span = {f"deltaR{end}{which}": r for end, r in (("Min", 1.0), ("Max", one.gap)) for which in ("", "Top", "Bottom")}
    triplets = examples.GridTripletSeedingAlgorithm(
        level=level,
        inputSpacePoints=f"spacepoints{number}",
        inputVertices="",
        outputSeeds=f"seeds{number}",
        bFieldInZ=FIELD * u.T,
        minPt=one.pt_min * u.GeV,
        cotThetaMax=math.sinh(one.eta_max),
        impactMax=one.seed_impact * u.mm,
        impactWeightFactor=one.impact_weight,
        rMax=one.radius_max * u.mm,
        zMin=-3000 * u.mm,
        zMax=3000 * u.mm,
        collisionRegionMin=-one.collision * u.mm,
        collisionRegionMax=one.collision * u.mm,
        sigmaScattering=one.scattering,
        radLengthPerSeed=one.radiation,
        maxSeedsPerSpM=one.seeds_per_point,
        rMinMiddle=one.middle[0] * u.mm,
        rMaxMiddle=one.middle[1] * u.mm,
        **span,
    )
    parameters = examples.TrackParamsEstimationAlgorithm(
        level=level,
        inputSeeds=f"seeds{number}",
        outputTrackParameters=f"parameters{number}",
        outputSeeds=f"estimated{number}",
        trackingGeometry=world.tracking,
        magneticField=world.field,
        initialSigmas=[1 * u.mm, 1 * u.mm, 1 * u.degree, 1 * u.degree, 0 * u.e / u.GeV, 1 * u.ns],
        initialSigmaQoverPt=0.1 * u.e / u.GeV,
        initialSigmaPtRel=0.1,
        initialVarInflation=[1.0] * 6,
        particleHypothesis=acts.ParticleHypothesis.pion,
    )
    return [points, triplets, parameters]


def _finding(one: Pass, hits: str, number: str) -> list[Any]:
    """The filter from each seed, outward and inward, and the choice among tracks that share hits."""
    finder, world = examples.TrackFindingAlgorithm, (geometry().tracking, geometry().field)
    level = acts.logging.FATAL  # at low pT extrapolation often ends early, and says so each time
    cuts: tuple[list[float], ...] = ([], [one.chi2[0]], [one.chi2[1]], [one.branches])
    tracks = acts.TrackSelector.Config(
        ptMin=one.pt_min * u.GeV,
        absEtaMax=one.eta_max,
        loc0Min=-one.impact * u.mm,
        loc0Max=one.impact * u.mm,
        minMeasurements=one.min_hits,
        maxHoles=one.holes,
        maxOutliers=2,
    )
    finding = finder(
        level=level,
        measurementSelectorCfg=acts.MeasurementSelector.Config([(acts.GeometryIdentifier(), cuts)]),
        inputMeasurements=hits,
        inputInitialTrackParameters=f"parameters{number}",
        inputSeeds=f"estimated{number}",
        outputTracks=f"candidates{number}",
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
        inputTracks=f"candidates{number}",
        outputTracks=f"tracks{number}",
        maximumSharedHits=one.shared,
        maximumIterations=1_000_000,
        nMeasurementsMin=one.min_hits,
    )
    return [finding, ambiguity]
