"""Hadrons that meet a nucleus of the detector, which ACTS's fast simulation leaves out: by Pythia 8."""

from __future__ import annotations

from functools import cache

import numpy as np

from cloudchamber.data import pythia
from cloudchamber.data.transport import (
    ID_BITS,
    INSTALL,
    MOMENTUM,
    POSITION,
    Array,
    Table,
    Transport,
    count_up,
    pack,
    unpack,
)

#: Nuclear interaction lengths per radiation length of material: between silicon, 0.20, and carbon, 0.50 (Particle Data
#: Group, atomic and nuclear properties of materials), as in trackers built (CMS, arXiv:1405.6569, figure 3).
LENGTHS = 0.3

_HADRONS, _NUCLEONS = (211, 321, 2212), (2212, 2112)
_NUCLEON = 0.93957  # GeV: the heavier one, for both
_INELASTIC = "nonDiffractive singleDiffractiveXB singleDiffractiveAX doubleDiffractive excitation annihilation resonant"
_ROUNDS = 4  # generations of secondaries
_AWAY = 0.5  # mm behind the surface where secondaries begin, lest they meet it again
_FIRST, _SUB = 2048, ID_BITS["vertexSecondary"]  # first ``subParticle``: those of the fast simulation count from 1
_PRODUCT = ("pdg", "charge", "m", "px", "py", "pz", "vx", "vy", "vz", "vt")


def interact(
    transport: Transport, number: int, hits: Table, particles: Table, lengths: float, rng: np.random.Generator
) -> tuple[Table, Table]:
    """Hits and particles of event ``number``, as ``Transport.run`` gives them, after the nuclear interactions.

    A charged pion, kaon or proton ends behind one of its hits, each equally likely, at a depth that is exponential in
    nuclear interaction lengths, ``lengths`` for each radiation length. What it leaves is an inelastic collision with a
    free nucleon at rest: Sjostrand and Utheim, arXiv:2108.03481. What else breaks off the nucleus is soft and left out,
    as are neutral hadrons.
    """
    found = [(hits, particles)]
    for generation in range(1, _ROUNDS + 1):
        last = _ends(hits, particles, lengths, rng)
        parent, secondaries, kept = _collide(hits, particles, last, transport.momentum_min, rng)
        found[-1] = {name: column[kept] for name, column in hits.items()}, particles
        if not len(parent):
            break
        # Far from the numbers of events: the fast simulation takes its random numbers from them.
        hits, particles = transport.run(secondaries, number + (generation << 40))
        particles["id"] = _descend(particles["id"], found[-1][1]["id"][parent])
        found.append((hits, particles))
    first = np.cumsum([0, *(len(rows["id"]) for _, rows in found)])
    hits, particles = (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "x0"}
        for parts in zip(*found, strict=True)
    )
    hits["object"] += np.repeat(first[:-1], [len(rows["object"]) for rows, _ in found])
    made = particles["id"][first[1] :]
    particles["id"][first[1] :] = made + (count_up(made) + _FIRST << _SUB)
    return hits, particles


def _descend(ids: Array, parents: Array) -> Array:
    """Ids of secondaries, all ``subParticle`` 0, from those they were followed with and those of all their parents."""
    code = unpack(ids)
    mother = unpack(parents[code["particle"] - 1])
    return pack(mother | {"generation": mother["generation"] + code["generation"] + 1, "subParticle": 0 * ids})


def _ends(hits: Table, particles: Table, lengths: float, rng: np.random.Generator) -> Array:
    """The row of the hit behind which each particle meets a nucleus, -1 for none."""
    number = np.bincount(hits["object"], minlength=len(particles["id"]))
    share = rng.exponential(size=len(number)) / np.maximum(lengths * particles["x0"], 1e-12)
    meets = (share < 1) & (number > 0) & np.isin(np.abs(particles["pdg"]), _HADRONS)
    place = np.cumsum(number) - number + (share * number).clip(max=number - 1).astype(np.int64)
    last = np.full(len(number), -1)
    last[meets] = np.lexsort((hits["time"], hits["object"]))[place[meets]]
    return last


def _collide(
    hits: Table, particles: Table, last: Array, momentum_min: float, rng: np.random.Generator
) -> tuple[Array, Table, Array]:
    """Parents of the secondaries, these as ``Transport.run`` takes them, and which hits stay; ``last`` from `_ends`."""
    end, rows, made = np.full(len(last), np.inf), [np.zeros(0, np.int64)], [np.zeros((0, len(_PRODUCT)))]
    struck, seen = rng.choice(_NUCLEONS, size=len(last)), set[_Collider]()
    met = np.flatnonzero(last >= 0)
    at = {name: hits[name][last[met]] for name in (*MOMENTUM, *POSITION, "time")}
    momentum = np.stack([at[name] for name in MOMENTUM], axis=1).astype(np.float64)
    for row, particle in enumerate(met):
        collider = _collider(int(particles["pdg"][particle]), int(struck[particle]))
        if collider not in seen:
            seen.add(collider)
            collider.generator.rndm.init(int(rng.integers(1, 900_000_000)))
        products = collider.collide(momentum[row], momentum_min)
        if products is not None:
            end[particle] = at["time"][row]
            rows.append(np.full(len(products), row))
            made.append(products)
    which = np.concatenate(rows)
    table: Table = dict(zip(_PRODUCT, np.concatenate(made).T, strict=True))
    table["pdg"] = table["pdg"].astype(np.int64)
    ahead = _AWAY * momentum / np.linalg.norm(momentum, axis=1, keepdims=True)
    for name, true, shift in zip(("vx", "vy", "vz"), POSITION, ahead.T, strict=True):
        table[name] = table[name] + (at[true] + shift)[which]
    table["vt"] = table["vt"] + at["time"][which]
    table |= {"vertexPrimary": np.ones_like(which), "vertexSecondary": np.zeros_like(which)}
    table["particle"] = np.arange(len(which)) + 1
    return met[which], table, hits["time"] <= end[hits["object"]]


class _Collider:
    """Inelastic collisions of one kind of hadron with one kind of nucleon at rest."""

    def __init__(self, pdg: int, nucleon: int) -> None:
        beams = (f"Beams:idA = {pdg}", f"Beams:idB = {nucleon}", "Beams:frameType = 2", "Beams:eA = 20")
        energy = (f"Beams:eB = {_NUCLEON}", "Beams:allowVariableEnergy = on")
        self.generator = pythia.start(
            (*beams, *energy, *(f"LowEnergyQCD:{k} = on" for k in _INELASTIC.split())), 10.0, INSTALL
        )
        self.mass = self.generator.particleData.m0(pdg)

    def collide(self, momentum: Array, momentum_min: float) -> Array | None:
        """Rows of ``_PRODUCT``, relative to the place of the collision, of those above ``momentum_min`` (GeV).

        ``None`` where the hadron is too slow for an inelastic collision.
        """
        size = float(np.linalg.norm(momentum))
        pythia8 = self.generator
        if not pythia8.setKinematics((size**2 + self.mass**2) ** 0.5, _NUCLEON) or not pythia8.next():
            return None
        rows = []
        for one in pythia8.event:
            if one.isFinal() and (one.isCharged() or one.id() == 22) and one.pAbs() > momentum_min:
                four = one.px(), one.py(), one.pz(), one.xProd(), one.yProd(), one.zProd()
                rows.append((one.id(), one.charge(), one.m(), *four, one.tProd()))
        products = np.array(rows, np.float64).reshape(-1, len(_PRODUCT))
        turn = _frame(momentum / size)
        products[:, 3:6], products[:, 6:9] = products[:, 3:6] @ turn, products[:, 6:9] @ turn
        return products


_collider = cache(_Collider)


def _frame(axis: Array) -> Array:
    """Three unit vectors as rows, (3, 3), at right angles to each other; the last is ``axis``."""
    first = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(axis, first), axis])
