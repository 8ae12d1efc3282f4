"""The detector's modules, and digitization: by hand, by brute force, and against ACTS on the same simulated hits."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pyarrow import csv

from cloudchamber.data import detector
from cloudchamber.data.collisions import CollisionsConfig, _Simulator
from cloudchamber.data.detector import READOUT, Detector
from cloudchamber.data.digitize import NOISE_FLATTEST, SENSORS, Clusters, Sensor, digitize, noise
from cloudchamber.errors import UserError

DATA = Path(os.environ.get("CLOUDCHAMBER_DATA", Path(__file__).parents[2] / "shared" / "data"))
PLAIN = {volume: replace(sensor, drift=0.0, binary=False, spread=0.0) for volume, sensor in SENSORS.items()}


@pytest.fixture(scope="module")
def modules() -> Detector:
    return detector.load()


def first(modules: Detector, volume: int, hits: int = 1) -> np.ndarray:
    return np.full(hits, np.flatnonzero(modules.volume == volume)[0])


def cells_of(
    modules: Detector, volume: int, place: tuple[float, float], direction: tuple[float, float, float], **sensor: object
) -> Clusters:
    """The cells of one hit, place and direction local."""
    rows = first(modules, volume)
    position = modules.to_global(rows, np.array([[*place, 0.0]]))
    turned = modules.to_global(rows, np.array([direction])) - modules.centre[rows]
    sensors = {v: replace(s, **sensor) for v, s in PLAIN.items()}  # type: ignore[arg-type]
    return digitize(modules, rows, position, turned, np.random.default_rng(0), sensors)


def test_modules(modules: Detector) -> None:
    assert len(modules) == 18728
    turn = modules.rotation
    assert_allclose(np.einsum("nij,nkj->nik", turn, turn), np.broadcast_to(np.eye(3), turn.shape), atol=1e-6)
    for volume, (pitch_u, pitch_v, thickness) in READOUT.items():
        own = modules.volume == volume
        assert_allclose(modules.pitch_u[own], pitch_u, rtol=1e-6)
        assert_allclose(modules.pitch_v[own], pitch_v, rtol=1e-6)
        assert_allclose(modules.thickness[own], thickness, rtol=1e-6)


def test_coordinates_round_trip(modules: Detector) -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(modules), 500)
    local = rng.normal(size=(500, 3)) * 10
    assert_allclose(modules.to_local(rows, modules.to_global(rows, local)), local, atol=1e-4)


def test_module_lookup(modules: Detector) -> None:
    rows = np.random.default_rng(2).permutation(len(modules))
    assert_array_equal(modules.rows(modules.volume[rows], modules.layer[rows], modules.module[rows]), rows)
    assert_array_equal(modules.surface_rows(modules.volume[rows], modules.layer[rows], modules.surface[rows]), rows)
    with pytest.raises(UserError, match=r"no volume 8, layer 2, module 999 \(hit 1, and 0 others\)"):
        modules.rows(np.array([8, 8]), np.array([2, 2]), np.array([1, 999]))


def test_table_is_trackmls(modules: Detector) -> None:
    path = DATA / "trackml" / "detectors.csv.gz"
    if not path.exists():
        pytest.skip(f"no {path}: set CLOUDCHAMBER_DATA")
    official = detector.from_table(csv.read_csv(path))
    assert_array_equal(official.rows(modules.volume, modules.layer, modules.module), np.arange(len(modules)))
    assert_allclose(modules.centre, official.centre, atol=5e-3)  # the file rounds to six digits
    assert_allclose(modules.rotation, official.rotation, atol=2e-6)
    for name in ("half_u_min", "half_u_max", "half_v", "thickness", "pitch_u", "pitch_v"):
        assert_allclose(getattr(modules, name), getattr(official, name), rtol=1e-5)


def test_table_is_actss(modules: Detector) -> None:
    acts = pytest.importorskip("acts")
    pytest.importorskip("acts.examples")
    geometry = acts.examples.GenericDetector(logLevel=acts.logging.FATAL)
    assert detector.build(geometry.trackingGeometry(), modules).equals(detector._shipped())


def test_straight_through_is_one_cell(modules: Detector) -> None:
    hit = cells_of(modules, 8, (0.01, 0.02), (0, 0, 2))
    assert_array_equal([hit.u, hit.v], [[168], [640]])  # of 336 x 1280, the first beyond the middle
    assert_allclose(hit.value, 0.15)
    assert_allclose(modules.to_local(first(modules, 8), hit.position), [[0.025, 0.028125, 0.0]], atol=1e-4)


def test_inclined_path_is_shared(modules: Detector) -> None:
    # Runs 0.15 mm along u, from -0.075 to 0.075 about the middle of a cell: a half, two full ones, a half.
    hit = cells_of(modules, 8, (0.0, 0.02), (1, 0, 1))
    assert_array_equal(hit.u, [166, 167, 168, 169])
    assert_array_equal(hit.v, [640] * 4)
    assert_allclose(hit.value, np.array([1, 2, 2, 1]) / 6 * 0.15 * np.sqrt(2), rtol=1e-4)
    assert_allclose(modules.to_local(first(modules, 8), hit.position)[0, 0], 0.0, atol=1e-4)
    back = cells_of(modules, 8, (0.0, 0.02), (-1, 0, -1))
    assert_allclose(np.sort(back.value), np.sort(hit.value), rtol=1e-6)


def test_drift_changes_the_width_only(modules: Detector) -> None:
    upright = cells_of(modules, 8, (0.0, 0.02), (0.5, 0, 1), drift=0.5)
    assert len(upright.u) <= 2
    assert_allclose(upright.value.sum(), 0.15 * np.sqrt(1.25), rtol=1e-6)
    wide = cells_of(modules, 8, (0.0, 0.02), (-0.5, 0, 1), drift=0.5)
    assert_array_equal(wide.u, [169, 168, 167, 166])


def test_binary_cells_count_alike(modules: Detector) -> None:
    hit = cells_of(modules, 8, (0.0, 0.02), (1, 0, 1), binary=True)
    assert_array_equal(hit.value, 1.0)


def test_path_ends_at_the_edge(modules: Detector) -> None:
    hit = cells_of(modules, 8, (8.39, 0.02), (10, 0, 1))
    assert hit.u.max() == 335
    # 0.01 mm to the edge on one side, 0.75 mm on the other, of 1.5 mm in all.
    assert_allclose(hit.value.sum(), 0.76 / 1.5 * 0.15 * np.sqrt(101), rtol=1e-3)
    grazing = cells_of(modules, 8, (0.0, 0.0), (1, 0, 0))
    assert_array_equal(np.sort(grazing.u), np.arange(336))
    corner = cells_of(modules, 12, (0.0, modules.half_v[first(modules, 12)][0]), (0, 1, 1))
    assert np.isfinite(corner.position).all()
    with pytest.raises(ValueError, match=r"hit 0 lies 0\.1 mm outside its module"):
        cells_of(modules, 8, (8.5, 0.0), (0, 0, 1))


@pytest.mark.parametrize("volume", sorted(READOUT))
def test_against_brute_force(modules: Detector, volume: int) -> None:
    """Each cell's share agrees with the fraction of many points along the path that lie in it."""
    rng = np.random.default_rng(volume)
    hits, points = 40, 4000
    own = np.flatnonzero(modules.volume == volume)
    rows = own[rng.integers(0, len(own), hits)]
    v = (2 * rng.random(hits) - 1) * modules.half_v[rows]
    low, high = modules.half_u_min[rows], modules.half_u_max[rows]
    width = (low + high) / 2 + v / modules.half_v[rows] * (high - low) / 2
    local = np.stack([(2 * rng.random(hits) - 1) * width, v, np.zeros(hits)], axis=1)
    along = np.concatenate([rng.normal(size=(hits, 2)), np.ones((hits, 1))], axis=1)
    position = modules.to_global(rows, local)
    direction = modules.to_global(rows, along) - modules.centre[rows]
    found = digitize(modules, rows, position, direction, rng, PLAIN)
    along = modules.turn_local(rows, direction)
    depth = SENSORS[volume].depth
    t = (np.arange(points) + 0.5) / points - 0.5
    path = modules.to_local(rows, position)[:, None] + t[:, None] * (along / along[:, 2:] * depth)[:, None]
    wide = ((low + high) / 2)[:, None] + path[..., 1] / modules.half_v[rows, None] * ((high - low) / 2)[:, None]
    inside = (np.abs(path[..., 0]) <= wide) & (np.abs(path[..., 1]) <= modules.half_v[rows, None])
    channel_u = np.floor((path[..., 0] + modules.half_u[rows, None]) / modules.pitch_u[rows, None]).astype(int)
    channel_v = np.floor((path[..., 1] + modules.half_v[rows, None]) / modules.pitch_v[rows, None]).astype(int)
    length = depth * np.linalg.norm(along, axis=1) / np.abs(along[:, 2])
    for hit in range(hits):
        cells = {
            (u, v): value for p, u, v, value in zip(found.point, found.u, found.v, found.value, strict=True) if p == hit
        }
        pairs = np.stack([channel_u[hit], channel_v[hit]], axis=1)[inside[hit]]
        unique, count = np.unique(pairs, axis=0, return_counts=True)
        expected = {tuple(pair): n / points * length[hit] for pair, n in zip(unique.tolist(), count, strict=True)}
        for pair in cells.keys() | expected.keys():
            assert_allclose(cells.get(pair, 0.0), expected.get(pair, 0.0), atol=3 * length[hit] / points)


def test_smearing_and_randomness(modules: Detector) -> None:
    rows = first(modules, 9, 4000)
    position = modules.to_global(rows, np.tile([0.02, 0.02, 0.0], (4000, 1)))
    sensors = {9: Sensor(depth=0.3, spread=0.1)}
    one, two = (
        digitize(modules, rows, position, modules.rotation[rows, :, 2], np.random.default_rng(3), sensors) for _ in "ab"
    )
    assert_array_equal(one.value, two.value)
    assert_allclose(one.value.mean(), 0.3, rtol=0.01)
    assert_allclose(one.value.std(), 0.03, rtol=0.1)


def test_no_hits(modules: Detector) -> None:
    nothing = np.zeros((0, 3))
    found = digitize(modules, np.zeros(0, np.int64), nothing, nothing, np.random.default_rng(0))
    assert len(found.point) == 0
    assert found.position.shape == (0, 3)


def test_noise(modules: Detector) -> None:
    rows, position, direction = noise(modules, 40000, np.random.default_rng(5))
    local = modules.to_local(rows, position)
    low, high = modules.half_u_min[rows], modules.half_u_max[rows]
    width = (low + high) / 2 + local[:, 1] / modules.half_v[rows] * (high - low) / 2
    assert (np.abs(local[:, 0]) <= width + 1e-4).all()
    assert (np.abs(modules.turn_local(rows, direction)[:, 2]) >= NOISE_FLATTEST - 1e-6).all()
    assert_allclose(np.linalg.norm(direction, axis=1), 1.0, rtol=1e-6)
    area = (modules.half_u_min + modules.half_u_max) * 2 * modules.half_v
    weight = np.array([SENSORS[int(volume)].noise for volume in modules.volume]) * area
    for volume in READOUT:
        expected = weight[modules.volume == volume].sum() / weight.sum() * len(rows)
        assert abs((modules.volume[rows] == volume).sum() - expected) < 5 * np.sqrt(expected)
    # Uniform in a trapezoid: the mean of v is a third of the half length times the excess of the wide end.
    own = modules.volume[rows] == 12
    shift = (modules.half_v[rows] / 3 * (high - low) / (high + low))[own]
    assert abs((local[own, 1] - shift).mean()) < 5 * local[own, 1].std() / np.sqrt(own.sum())


@pytest.mark.parametrize("volume", sorted(READOUT))
def test_against_trackml(modules: Detector, volume: int) -> None:
    """The true hits of a real TrackML event, digitized by us, look like its cells and measured positions."""
    folder = DATA / "trackml" / "thin_event"
    if not folder.exists():
        pytest.skip(f"no {folder}: set CLOUDCHAMBER_DATA")
    names = ("hits", "truth", "cells")
    hits, truth, cells = (csv.read_csv(folder / f"event000000001-{name}.csv.gz").to_pandas() for name in names)
    chosen = (hits.volume_id == volume) & (truth.particle_id != 0)
    hits, truth = hits[chosen], truth[chosen]
    rows = modules.rows(*(hits[f"{name}_id"].to_numpy() for name in ("volume", "layer", "module")))
    true = truth[["tx", "ty", "tz"]].to_numpy()
    true = modules.to_global(rows, modules.to_local(rows, true) * [1, 1, 0])  # six digits: back into the plane
    found = digitize(modules, rows, true, truth[["tpx", "tpy", "tpz"]].to_numpy(), np.random.default_rng(0))
    official = cells[cells.hit_id.isin(hits.hit_id)]
    assert_allclose(len(found.point), len(official), rtol=0.02)
    assert_allclose(found.value.sum(), official.value.sum(), rtol=0.02)
    place = hits[["x", "y", "z"]].to_numpy()
    spread = [modules.turn_local(rows, one - true)[:, :2].std(axis=0) for one in (place, found.position)]
    assert_allclose(spread[1], spread[0], rtol=0.05)


def acts_digitization(transport: object, context: object, folder: Path) -> tuple[dict[str, np.ndarray], ...]:
    """ACTS's own measurements, cells and measurement-to-hit map of the simulated hits, by way of its CSV files.

    Without smearing of the charge: ACTS adds it as so many mm, we as a fraction.
    """
    import acts
    from acts.examples import json as acts_json

    ex, geometry = acts.examples, transport.geometry.trackingGeometry()  # type: ignore[attr-defined]
    entries = []
    for surface_id, surface in geometry.geoIdSurfaceMap().items():
        if not surface_id.sensitive:
            continue
        bounds = list(surface.bounds.values())
        rectangle = bounds[0] < 0
        half = (bounds[2], bounds[3]) if rectangle else (max(bounds[:2]), bounds[2])
        bins = [
            {"bins": round(2 * h / p), "min": -h, "max": h, "option": "open", "type": "equidistant", "value": axis}
            for h, p, axis in zip(half, READOUT[surface_id.volume][:2], ("binX", "binY"), strict=True)
        ]
        value = {"digital": False, "indices": [0, 1], "segmentation": {"binningdata": bins}, "threshold": 0.0}
        value |= {"thickness": SENSORS[surface_id.volume].depth}
        place = {"volume": surface_id.volume, "layer": surface_id.layer, "sensitive": surface_id.sensitive}
        entries.append(place | {"value": {"geometric": value}})
    header = {"format-version": 0, "value-identifier": "digitization-configuration"}
    config = folder / "digitization.json"
    config.write_text(json.dumps({"acts-geometry-hierarchy-map": header, "entries": entries}))
    algorithm = ex.DigitizationAlgorithm(
        level=acts.logging.FATAL,
        digitizationConfigs=acts_json.readDigiConfigFromJson(str(config)),
        surfaceByIdentifier=geometry.geoIdSurfaceMap(),
        randomNumbers=ex.RandomNumbers(seed=1),
        inputSimHits="hits",
        doOutputCells=True,
        outputMeasurements="measurements",
        outputMeasurementParticlesMap="measurement_particles",
        outputMeasurementSimHitsMap="measurement_hits",
        outputParticleMeasurementsMap="particle_measurements",
        outputSimHitMeasurementsMap="hit_measurements",
    )
    writer = ex.CsvMeasurementWriter(
        level=acts.logging.FATAL,
        inputMeasurements="measurements",
        inputClusters=algorithm.config.outputClusters,
        inputMeasurementSimHitsMap="measurement_hits",
        outputDir=str(folder),
    )
    assert algorithm.internalExecute(context) == ex.ProcessCode.SUCCESS
    assert writer.write(context) == ex.ProcessCode.SUCCESS
    names = ("measurements", "cells", "measurement-simhit-map")
    tables = (csv.read_csv(next(folder.glob(f"*-{name}.csv"))) for name in names)
    return tuple({name: table[name].to_numpy() for name in table.column_names} for table in tables)


@pytest.mark.slow
def test_against_acts(modules: Detector, tmp_path: Path) -> None:
    pytest.importorskip("acts")
    pytest.importorskip("pythia8mc")
    simulator = _Simulator(CollisionsConfig(pileup=0.0))
    transport = simulator.transport
    board, context = transport.context(simulator._generate(np.random.default_rng(7)), 3)
    hits, _ = transport.tables(board, context)
    measured, cells, origin = acts_digitization(transport, context, tmp_path)
    rows = modules.surface_rows(hits["volume"], hits["layer"], hits["surface"])
    position = np.stack([hits[name] for name in ("tx", "ty", "tz")], axis=1)
    momentum = np.stack([hits[name] for name in ("tpx", "tpy", "tpz")], axis=1)
    ours = digitize(modules, rows, position, momentum, np.random.default_rng(0), PLAIN)
    hit = origin["hit_id"][np.argsort(origin["measurement_id"])]
    assert len(hit) > 0.99 * len(rows) > 500  # ACTS makes one measurement of two hits in the same cells, we do not
    size = np.bincount(ours.point, minlength=len(rows))[hit]
    assert (np.bincount(cells["measurement_id"], minlength=len(hit)) == size).mean() > 0.98
    theirs = np.stack([measured[f"global_{axis}"] for axis in "xyz"], axis=1)
    apart = np.linalg.norm(theirs - ours.position[hit], axis=1)
    assert np.quantile(apart, 0.5) < 1e-3
    assert np.quantile(apart, 0.99) < 2e-2  # mm: cells hit by a hair's breadth, ACTS averages momentum before and after
    value = [np.bincount(cells["measurement_id"], cells["value"]), np.bincount(ours.point, ours.value)[hit]]
    assert_allclose(np.quantile(value[0] / value[1], [0.05, 0.5, 0.95]), 1.0, atol=0.01)
    for volume in (8, 9, 13, 17):
        own = hit[hits["volume"][hit] == volume]
        found = (ours.position[own], theirs[hits["volume"][hit] == volume])
        residual = [modules.turn_local(rows[own], place - position[own])[:, :2] for place in found]
        assert_allclose(residual[0].std(axis=0), residual[1].std(axis=0), rtol=0.01)
