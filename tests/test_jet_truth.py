"""What jets are matched to, where their particles come from, and what a detector makes of them, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cloudchamber.data.ancestry import ancestry, by_appearance, heavy
from cloudchamber.data.processes import PROCESSES, matched
from cloudchamber.data.smear import CHARGED, ELECTRON, MUON, NEUTRAL, PHOTON, impact_errors, smear


def record(*rows: tuple[int, int, int, int, float]) -> dict[str, np.ndarray]:
    """Particles of pT 100 GeV in the transverse plane: PDG number, status, daughters, phi."""
    table = np.array(rows)
    pdg, status, first, last = table[:, :4].T.astype(int)
    columns = {"pdg": pdg, "status": status, "daughter1": first, "daughter2": last}
    return columns | {"px": 100 * np.cos(table[:, 4]), "py": 100 * np.sin(table[:, 4]), "pz": np.zeros(len(table))}


#: A top that first radiates, its W with a copy, and their quarks at phi 0.1, 0.3 and -0.4.
TOP = (
    (90, -11, 0, 0, 0.0),
    (6, -22, 2, 3, 3.0),
    (6, -62, 4, 5, 0.0),
    (21, 51, 0, 0, 2.0),
    (24, -22, 6, 6, 0.1),
    (5, -23, 0, 0, 0.1),
    (24, -52, 7, 8, 0.1),
    (2, -23, 0, 0, 0.3),
    (-1, -23, 0, 0, -0.4),
)


@pytest.mark.parametrize(
    ("phi", "radius", "expected"),
    [(0.0, 0.8, True), (0.35, 0.8, True), (0.5, 0.8, False), (0.0, 0.35, False), (3.0, 0.8, False)],
)
def test_a_top_is_matched_with_all_its_quarks(phi: float, radius: float, expected: bool) -> None:
    assert matched(PROCESSES["top"], record(*TOP), (0.0, phi), radius) is expected


def test_a_leptonic_top_is_not_matched() -> None:
    rows = list(TOP)
    rows[7], rows[8] = (-11, -23, 0, 0, 0.3), (12, -23, 0, 0, -0.4)
    assert not matched(PROCESSES["top"], record(*rows), (0.0, 0.0), 0.8)


@pytest.mark.parametrize(
    ("process", "pdg", "status", "phi", "expected"),
    [
        ("quark", 2, -23, 0.1, True),
        ("quark", 2, -51, 0.1, False),  # not of the hard collision
        ("quark", 4, -23, 0.1, False),
        ("gluon", 21, -23, 0.1, True),
        ("gluon", 21, -23, 1.0, False),
        ("qcd", 21, -23, 3.0, True),
    ],
)
def test_partons(process: str, pdg: int, status: int, phi: float, expected: bool) -> None:
    rows = record((90, -11, 0, 0, 0.0), (pdg, status, 0, 0, phi))
    assert matched(PROCESSES[process], rows, (0.0, 0.0), 0.8) is expected


@pytest.mark.parametrize(("quark", "expected"), [(5, True), (4, False)])
def test_a_higgs_must_decay_to_b(quark: int, expected: bool) -> None:
    rows = ((90, -11, 0, 0, 0.0), (25, -62, 2, 3, 0.0), (quark, -23, 0, 0, 0.1), (-quark, -23, 0, 0, -0.1))
    assert matched(PROCESSES["hbb"], record(*rows), (0.0, 0.0), 0.8) is expected


def test_heavy() -> None:
    """PDG numbers of the Particle Data Group: B0, B*, Lambda_b, Upsilon; D+, Lambda_c, J/psi; neither."""
    bottom, charm = [511, -513, 5122, 553, 531], [411, -4122, 443, 10411]
    neither = [211, 310, 3122, 2212, 22, 5, 4, 5503, 4101, 25, 90, 2224, 9010221]
    numbers = np.array(bottom + charm + neither)
    assert heavy(numbers, 5).tolist() == [True] * 5 + [False] * (4 + len(neither))
    assert heavy(numbers, 4).tolist() == [False] * 5 + [True] * 4 + [False] * len(neither)


def test_ancestry() -> None:
    """A B that flies, decays to D* pi, the D* at once to D0 pi, the D0 flies; a photon of a pi0; a K_S; a prompt D."""
    chain = [
        # pdg, mother, x (mm), origin, vertex
        (90, -1, 0.0, 0, -1),
        (5, 0, 0.0, 0, -1),
        (511, 1, 0.0, 0, -1),
        (-413, 2, 3.0, 1, 2),
        (211, 2, 3.0, 1, 2),
        (-421, 3, 3.0, 1, 2),
        (-211, 3, 3.0, 1, 2),
        (321, 5, 4.0, 1, 5),
        (111, 5, 4.0, 1, 5),
        (22, 8, 4.0001, 1, 5),
        (211, 1, 0.0, 0, -1),
        (310, 1, 0.0, 0, -1),
        (211, 11, 27.0, 3, 11),
        (411, 1, 0.0, 0, -1),
        (13, 13, 0.001, 2, -1),
        (111, 1, 0.0, 0, -1),
        (22, 15, 0.0002, 0, -1),
    ]
    pdg, mother, x, origin, vertex = np.array(chain).T
    columns = {"pdg": pdg.astype(int), "mother1": mother.astype(int), "vx": x, "vy": 0 * x, "vz": 0 * x}
    found = ancestry(columns)
    assert found["origin"].tolist() == origin.tolist()
    assert found["vertex"].tolist() == vertex.tolist()
    assert by_appearance(found["vertex"][[10, 12, 7, 4, 9, 6]]).tolist() == [0, 1, 2, 3, 2, 3]


def particles(size: int, pdg: int, charge: float, pt: float, eta: float) -> dict[str, np.ndarray]:
    ones = np.ones(size)
    columns = {"px": pt * ones, "py": 0 * ones, "pz": pt * np.sinh(eta) * ones, "vx": 0 * ones, "vy": 0 * ones}
    columns |= {"vz": 0 * ones, "pdg": np.full(size, pdg), "charge": charge * ones}
    return columns | {"energy": pt * np.cosh(eta) * ones}


@pytest.mark.parametrize(
    ("pdg", "charge", "pt", "eta", "track", "resolution"),
    [
        (211, 1.0, 10.0, 0.0, 0.95, np.hypot(0.01, 1e-3)),
        (-13, 1.0, 100.0, 1.0, 0.95, np.hypot(0.015, 0.015)),
        (11, -1.0, 20.0, -2.0, 0.85, np.hypot(0.025, 7e-3)),
        (211, 1.0, 0.5, 0.0, 0.70, 0.01),
        (211, 1.0, 50.0, 3.0, 0.0, 0.0),
        (22, 0.0, 50.0, 0.0, 0.0, np.sqrt(0.008**2 + 0.11**2 / 50 + 0.4**2 / 2500)),
        (130, 0.0, 100.0, 0.0, 0.0, np.hypot(0.05, 0.15)),
    ],
)
def test_smeared(pdg: int, charge: float, pt: float, eta: float, track: float, resolution: float) -> None:
    """Efficiency and resolution of 20 000 equal particles are those of the formulas, within five errors."""
    size = 20_000
    found, rows = smear(particles(size, pdg, charge, pt, eta), np.random.default_rng(1))
    tracks = found["sigma_d0"] > 0
    assert tracks.sum() / size == pytest.approx(track, abs=5 * (max(track * (1 - track), 1e-9) / size) ** 0.5)
    kind = {11: ELECTRON, 13: MUON}.get(abs(pdg), CHARGED)
    assert set(found["type"][tracks]) <= {kind}
    assert set(found["type"][~tracks]) <= {PHOTON if abs(pdg) in (11, 22) else NEUTRAL}
    assert (found["charge"] == np.where(tracks, charge, 0)).all()
    assert (np.diff(rows) > 0).all()
    if resolution:
        chosen = tracks if track else slice(None)
        value = np.hypot(found["px"], found["py"])[chosen] if track else found["energy"]
        expected = pt if track else pt * np.cosh(eta)
        assert value.mean() / expected == pytest.approx(1, abs=5 * resolution / size**0.5)
        assert value.std() / expected == pytest.approx(resolution, rel=0.05)


def test_impact_parameters() -> None:
    """Of a stiff track along x from a displaced vertex: d0 = y and z0 = z - x cot(theta)."""
    table = particles(20_000, 211, 1.0, 400.0, 0.5)
    for name, value in (("vx", 2.0), ("vy", 0.3), ("vz", 1.0)):
        table[name] = np.full(20_000, value)
    found, _ = smear(table, np.random.default_rng(2))
    track = found["sigma_d0"] > 0
    sigma_d0, sigma_z0 = found["sigma_d0"][track], found["sigma_z0"][track]
    assert ((found["d0"][track] - 0.3) / sigma_d0).mean() == pytest.approx(0, abs=0.1)
    assert ((found["z0"][track] - 1.0 + 2.0 * np.sinh(0.5)) / sigma_z0).mean() == pytest.approx(0, abs=0.1)
    assert ((found["d0"][track] - 0.3) / sigma_d0).std() == pytest.approx(1, abs=0.03)


def test_impact_errors_are_near_what_cms_measured() -> None:
    """arXiv:1405.6569, |eta| < 1.4, 1 to 10 GeV: 90 to 25 micrometres across, 150 to 45 along the beam."""
    d0, z0 = impact_errors(np.array([1.0, 10.0]), np.array([0.3, 0.3]))
    assert d0 == pytest.approx([0.090, 0.025], abs=0.010)
    assert z0 == pytest.approx([0.150, 0.045], abs=0.015)


def test_nothing_is_seen_of_nothing() -> None:
    found, rows = smear(particles(0, 22, 0.0, 1.0, 0.0), np.random.default_rng(0))
    assert len(rows) == len(found["px"]) == 0
