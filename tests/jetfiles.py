"""Small files of jets in the layouts of the public formats, with numbers drawn at random, and what should be read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

Table = dict[str, np.ndarray]


def constituents(jets: int, seed: int = 0, most: int = 6) -> tuple[np.ndarray, Table]:
    """Numbers of constituents (jets,) and massless ones in falling pT, end to end: pt, eta, phi, px, py, pz, energy."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, most + 1, jets)
    size = count.sum()
    pt, eta, phi = rng.exponential(50, size) + 1, rng.normal(0, 0.3, size), rng.normal(0, 0.3, size)
    pt = pt[np.lexsort((-pt, np.repeat(np.arange(jets), count)))]
    point = {"pt": pt, "eta": eta, "phi": phi, "px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta)}
    return count, point | {"energy": pt * np.cosh(eta)}


def top_tagging(path: Path, jets: int = 25, seed: int = 0, width: int = 8, **change: Any) -> tuple[np.ndarray, Table]:
    """A pandas table as PyTables lays it out, with ``width`` constituents instead of 200.

    ``change``: ``drop`` a column, ``value`` (row, column, number) to set, ``names`` instead of the pickled list.
    """
    import h5py

    count, point = constituents(jets, seed, width)
    block = np.zeros((jets, 4 * width + 4), np.float32)
    there = np.arange(width) < count[:, None]
    for place, name in enumerate(("energy", "px", "py", "pz")):
        padded = np.zeros((jets, width), np.float32)
        padded[there] = point[name]
        block[:, place : 4 * width : 4] = padded
    names = [f"{v}_{i}" for i in range(width) for v in ("E", "PX", "PY", "PZ")]
    names += ["truthE", "truthPX", "truthPY", "truthPZ"]
    label = np.stack([np.zeros(jets, np.int64), np.arange(jets) % 2], axis=1)
    if "value" in change:
        row, column, number = change["value"]
        if column == "is_signal_new":
            label[row, 1] = number
        else:
            block[row, names.index(column)] = number
    kinds: list[Any] = [names, ["ttv", "is_signal_new"]]
    kinds = [[f"x{name}" if name == change.get("drop") else name for name in kind] for kind in kinds]
    fields = [("index", "<i8"), ("values_block_0", "<f4", (block.shape[1],)), ("values_block_1", "<i8", (2,))]
    table = np.zeros(jets, fields)
    table["index"], table["values_block_0"], table["values_block_1"] = np.arange(jets), block, label
    with h5py.File(path, "w") as file:
        data = file.create_dataset("table/table", data=table, chunks=(10,), compression="gzip")
        for number, kind in enumerate(kinds):
            pickled = pickle.dumps(kind, protocol=0)
            data.attrs[f"values_block_{number}_kind"] = np.bytes_(change.get("names", pickled))
        file["table"].attrs["pandas_type"] = np.bytes_(b"frame_table")
    return count, point


def jetnet(path: Path, jets: int = 25, seed: int = 0, width: int = 8, **change: Any) -> tuple[np.ndarray, Table, Table]:
    """``particle_features`` and ``jet_features`` of JetNet. ``change``: ``shape`` of features, ``drop``, ``value``."""
    import h5py

    count, relative = constituents(jets, seed, width)
    rng = np.random.default_rng(seed + 1)
    jet = {"pt": rng.uniform(800, 1600, jets), "eta": rng.normal(0, 1, jets), "mass": rng.uniform(50, 200, jets)}
    particles = np.zeros((jets, width, 4), np.float32)
    there = np.arange(width) < count[:, None]
    for place, column in enumerate(
        (relative["eta"], relative["phi"], relative["pt"] / 1000, np.ones(len(there[there])))
    ):
        particles[there, place] = column
    features = {"particle_features": particles, "jet_features": np.stack([*jet.values(), count], 1).astype(np.float32)}
    if "value" in change:
        particles[change["value"][0], 0, 2] = change["value"][1]
    features.pop(change.get("drop", ""), None)
    with h5py.File(path, "w") as file:
        for name, array in features.items():
            file[name] = array[..., : change.get("columns", 4)]
    owner = np.repeat(np.arange(jets), count)
    pt, eta, phi = relative["pt"] / 1000 * jet["pt"][owner], relative["eta"] + jet["eta"][owner], relative["phi"]
    point = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "energy": pt * np.cosh(eta)}
    return count, point, jet


def jetclass(path: Path, jets: int = 25, seed: int = 0, **change: Any) -> tuple[np.ndarray, Table, Table]:
    """The tree of JetClass. ``change``: ``drop`` a column, ``value`` (row, column, number) of a jet's first entry."""
    import uproot

    count, point = constituents(jets, seed)
    rng = np.random.default_rng(seed + 1)
    size = count.sum()
    kind = rng.integers(0, 5, size)
    track = np.isin(kind, (0, 3, 4))
    columns = {f"part_{name}": point[name] for name in ("px", "py", "pz", "energy")}
    for name, scale in (("d0val", 0.1), ("d0err", 0.02), ("dzval", 0.2), ("dzerr", 0.03)):
        columns[f"part_{name}"] = np.where(track, np.abs(rng.normal(0, scale, size)) + 1e-3, 0.0)
    columns["part_charge"] = np.where(track, 1.0, 0.0)
    for number, name in enumerate(("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")):
        columns[f"part_is{name}"] = (kind == number).astype(np.float64)
    tree: dict[str, Any] = {name: column.astype(np.float32) for name, column in columns.items()}
    first = np.cumsum(count) - count
    jet = {"jet_pt": rng.uniform(500, 1000, jets), "jet_eta": rng.normal(0, 1, jets), "jet_phi": rng.normal(0, 1, jets)}
    jet["jet_energy"] = np.hypot(jet["jet_pt"] * np.cosh(jet["jet_eta"]), 100.0)
    labels = ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
    marks = {f"label_{name}": (np.arange(jets) % 10 == i).astype(np.int32) for i, name in enumerate(labels)}
    if "value" in change:
        row, column, number = change["value"]
        if column in tree:
            tree[column][first[row]] = number
        else:
            (jet if column in jet else marks)[column][row] = number
    tree = {name: ak.unflatten(column, count) for name, column in tree.items()}
    if "longer" in change:
        tree[change["longer"]] = ak.concatenate([tree[change["longer"]], [[0.0]] * jets], axis=1)
    tree |= {name: column.astype(np.float32) for name, column in jet.items()} | marks
    tree.pop(change.get("drop", ""), None)
    with uproot.recreate(path) as file:
        file.mktree("tree", tree)
    columns["kind"] = kind
    return count, columns, jet


def nanoaod(path: Path, events: int = 12, seed: int = 0, *, new: bool = False, **change: Any) -> dict[str, Any]:
    """Events of NanoAOD with 0 to 3 jets, candidates in random order, some in no jet; links in random order.

    ``new``: the names of NanoAOD 15, without tracks. ``change``: ``drop`` a column, ``link`` (column, number) to set.
    """
    import uproot

    rng = np.random.default_rng(seed)
    candidates, link, index = (
        ("PFCand", "FatJetPFCand", "pfCandIdx") if new else ("PFCands", "FatJetPFCands", "pFCandsIdx")
    )
    jets: list[list[list[int]]] = []
    rows: list[list[dict[str, float]]] = []
    for _ in range(events):
        number = int(rng.integers(3, 15))
        kinds = rng.choice([211, -211, 130, 22, 11, -13], number)
        rows.append([_candidate(rng, int(kind)) for kind in kinds])
        order = rng.permutation(number).tolist()
        cuts = sorted(rng.integers(1, number, int(rng.integers(0, 4))).tolist())
        pieces = np.split(np.array(order), cuts)[1:]
        jets.append([piece.tolist() for piece in pieces])
    links = [[(jet, row) for jet, members in enumerate(event) for row in members] for event in jets]
    links = [[event[i] for i in rng.permutation(len(event))] for event in links]
    jet = [[{"pt": rng.uniform(200, 900), "eta": 0.1, "phi": -0.2, "mass": 80.0} for _ in event] for event in jets]
    names = ("pt", "eta", "phi", "mass", "pdgId") if new else tuple(_candidate(rng, 22))
    tree: dict[str, Any] = {"FatJet": _collection(jet, ("pt", "eta", "phi", "mass"))}
    tree[candidates] = _collection(rows, tuple(name for name in names if f"{candidates}_{name}" != change.get("drop")))
    pairs = [[{"jetIdx": pair[0], index: pair[1]} for pair in event] for event in links]
    if "link" in change:
        place = next(i for i, event in enumerate(pairs) if event)
        pairs[place][0][change["link"][0]] = change["link"][1]
    tree[link] = _collection(pairs, ("jetIdx", index), np.int32)
    with uproot.recreate(path) as file:
        file.mktree("Events", tree)
    flat = {"jets": [members for event in jets for members in event], "jet": [one for event in jet for one in event]}
    return flat | {"rows": rows, "event": [number for number, event in enumerate(jets) for _ in event]}


def _candidate(rng: np.random.Generator, pdg: int) -> dict[str, float]:
    track = abs(pdg) in (11, 13, 211)
    found = {
        "pt": rng.exponential(20) + 1,
        "eta": rng.normal(),
        "phi": rng.uniform(-3, 3),
        "mass": 0.13957,
        "pdgId": pdg,
    }
    found["charge"] = 0 if not track else (1 if pdg > 0 else -1) * (-1 if abs(pdg) in (11, 13) else 1)
    for name in ("d0", "d0Err", "dz", "dzErr"):
        found[name] = abs(rng.normal(0, 0.01)) + 1e-4 if track else -1.0
    return found


def _collection(events: list[list[dict[str, Any]]], names: tuple[str, ...], kind: Any = np.float32) -> Any:
    flat = [row for event in events for row in event]
    integers = ("pdgId", "charge")
    columns = {n: np.array([row[n] for row in flat], np.int32 if n in integers else kind) for n in names}
    count = [len(event) for event in events]
    return ak.zip({name: ak.unflatten(column, count) for name, column in columns.items()})
