"""Where particles come from: the flavour of their ancestors and the vertex at which they were made."""

from __future__ import annotations

import numpy as np

from cloudchamber.data.transport import Array, Table

#: Values of ``point.origin``, by index: made at the collision, in the decay of a b hadron (or of what it decays to), in
#: that of a c hadron without a b hadron before, in another decay that happened elsewhere.
ORIGINS = ("primary", "b", "c", "other")
#: A particle made this far (mm) from where its mother was made comes from a vertex of its own.
FLIGHT = 0.01


def heavy(pdg: Array, quark: int) -> Array:
    """Whether PDG numbers are of hadrons with this quark (4 or 5) as the heaviest, bool of the same shape."""
    number = np.abs(pdg)
    digits = np.stack([number // 10**place % 10 for place in (1, 2, 3)])
    hadron = (number < 10_000_000) & (digits[0] > 0) & (digits[1] > 0)  # diquarks have no tens
    found: Array = hadron & (digits.max(axis=0) == quark)
    return found


def ancestry(record: Table) -> Table:
    """``origin`` (see ``ORIGINS``) and ``vertex`` of particles, int64; vertex -1: the collision, or else the row of the
    particle that decayed there.

    ``record`` has Pythia's particles of events end to end: ``pdg``, ``mother1`` (row, -1 for none) and the production
    vertex ``vx``, ``vy``, ``vz`` in mm.
    """
    mother = record["mother1"]
    origin = np.zeros(len(mother), np.int64)
    vertex = np.full(len(mother), -1)
    place = np.stack([record["vx"], record["vy"], record["vz"]], axis=1)
    flown = (mother >= 0) & (np.linalg.norm(place - place[mother], axis=1) > FLIGHT)
    vertex[flown] = mother[flown]
    # A mark is handed down as far as it is not the particle's own: as many rounds as the longest chain of decays.
    bottom, charm = heavy(record["pdg"], 5), heavy(record["pdg"], 4)
    from_b, from_c = np.zeros(len(mother), bool), np.zeros(len(mother), bool)
    child = np.flatnonzero((mother >= 0) & (np.abs(record["pdg"][mother]) > 8))
    child = child[~np.isin(record["pdg"][mother[child]], (21, 22, 90, 2212))]
    parent = mother[child]
    while True:
        new_b, new_c = bottom[parent] | from_b[parent], charm[parent] | from_c[parent]
        new_vertex = np.where(flown[child], vertex[child], vertex[parent])
        same = (new_b == from_b[child]) & (new_c == from_c[child]) & (new_vertex == vertex[child])
        if same.all():
            break
        from_b[child], from_c[child], vertex[child] = new_b, new_c, new_vertex
    origin[vertex >= 0] = ORIGINS.index("other")
    origin[from_c], origin[from_b] = ORIGINS.index("c"), ORIGINS.index("b")
    return {"origin": origin, "vertex": vertex}


def by_appearance(keys: Array) -> Array:
    """Vertices of ``ancestry`` numbered from 1 in the order of their first particles; the collision becomes 0."""
    displaced = keys[keys >= 0]
    unique, first = np.unique(displaced, return_index=True)
    number = np.empty(len(unique), np.int64)
    number[np.argsort(first)] = np.arange(1, len(unique) + 1)
    result = np.zeros(len(keys), np.int64)
    result[keys >= 0] = number[np.searchsorted(unique, displaced)]
    return result
