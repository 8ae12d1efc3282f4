"""Jets of the public formats: the numbers that are in the files, and one line for whatever is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jetfiles
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cli import Call, call, refused

from cloudchamber.data import store
from cloudchamber.data.jetsource import open_jets
from cloudchamber.data.smear import TYPES
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch

__all__ = ["call"]
pytest.importorskip("h5py", reason="needs cloudchamber[jets]")
pytest.importorskip("uproot", reason="needs cloudchamber[jets]")

MOMENTUM = ("px", "py", "pz", "energy")
quick = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def has(event: Event, level: str, expected: dict[str, Any]) -> None:
    for name, column in expected.items():
        found = getattr(event, level)[name].double().numpy()
        np.testing.assert_allclose(found, np.asarray(column, np.float64), rtol=2e-5, atol=1e-5, err_msg=name)


def test_top_tagging(tmp_path: Path) -> None:
    count, point = jetfiles.top_tagging(tmp_path / "train.h5")
    jets = open_jets(tmp_path / "train.h5")
    assert (len(jets), jets.labels) == (25, ("qcd", "top"))
    event = jets.range(0, 25)
    assert event.count["point"].tolist() == count.tolist()
    has(event, "point", {name: point[name] for name in MOMENTUM})
    assert event.scene["label"].tolist() == [i % 2 for i in range(25)]
    assert event.scene["id"].tolist() == list(range(25))
    owner = np.repeat(np.arange(25), count)
    px, py, pz, energy = (np.bincount(owner, point[name]) for name in MOMENTUM)
    mass = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))
    np.testing.assert_allclose(event.scene["mass"], mass, atol=0.02)
    has(event, "scene", {"pt": np.hypot(px, py), "eta": np.arcsinh(pz / np.hypot(px, py)), "phi": np.arctan2(py, px)})


@pytest.mark.parametrize("library", ["zlib", "blosc"])
def test_top_tagging_as_pandas_writes_it(tmp_path: Path, library: str) -> None:
    pytest.importorskip("tables", reason="pandas writes HDF5 by PyTables")
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("hdf5plugin", reason="needs cloudchamber[jets]")
    rng = np.random.default_rng(0)
    names = [f"{name}_{i}" for i in range(200) for name in ("E", "PX", "PY", "PZ")] + ["truthE"]
    frame = pandas.DataFrame(rng.normal(size=(30, 801)).astype(np.float32), columns=names)
    frame["ttv"], frame["is_signal_new"] = 0, np.arange(30) % 2
    frame.to_hdf(tmp_path / "test.h5", key="table", format="table", complib=library, complevel=5)
    event = open_jets(tmp_path / "test.h5").range(3, 7)
    assert event.scene["label"].tolist() == [1, 0, 1, 0]
    for jet in range(4):
        pt = np.hypot(*(frame.iloc[3 + jet][[f"{name}_{i}" for i in range(200)]].to_numpy() for name in ("PX", "PY")))
        order = np.argsort(-pt, kind="stable")
        found = event.take(torch.tensor([jet])).point["energy"].numpy()
        assert np.array_equal(found, frame.iloc[3 + jet][[f"E_{i}" for i in order]].to_numpy(np.float32))


def test_jetnet(tmp_path: Path) -> None:
    count, point, jet = jetfiles.jetnet(tmp_path / "t150.hdf5")
    jetfiles.jetnet(tmp_path / "g.hdf5", jets=3, seed=5)
    event = open_jets(tmp_path / "t150.hdf5").range(0, 25)
    assert event.count["point"].tolist() == count.tolist()
    has(event, "point", point)
    has(event, "scene", {"pt": jet["pt"], "eta": jet["eta"], "mass": jet["mass"], "phi": np.zeros(25)})
    both = open_jets(tmp_path)
    assert both.labels == ("gluon", "quark", "top", "w", "z")
    assert both.range(2, 5).scene["label"].tolist() == [0, 2, 2]
    assert both.range(2, 5).scene["id"].tolist() == [2, 3, 4]


def test_jetclass(tmp_path: Path) -> None:
    count, part, jet = jetfiles.jetclass(tmp_path / "HToBB_000.root")
    jets = open_jets(tmp_path / "HToBB_000.root")
    assert jets.labels == ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
    event = batch(jets.batches(7))
    assert event.count["point"].tolist() == count.tolist()
    names = {"px": "px", "py": "py", "pz": "pz", "energy": "energy", "z0": "dzval", "charge": "charge"}
    names |= {"sigma_d0": "d0err", "sigma_z0": "dzerr"}
    has(event, "point", {ours: part[f"part_{theirs}"] for ours, theirs in names.items()} | {"type": part["kind"]})
    has(event, "point", {"d0": -part["part_d0val"]})  # Delphes: (x py - y px) / pt
    has(event, "scene", {name: jet[f"jet_{name}"] for name in ("pt", "eta", "phi")})
    np.testing.assert_allclose(event.scene["mass"], 100, atol=0.1)
    assert event.scene["label"].tolist() == [i % 10 for i in range(25)]


@pytest.mark.parametrize("new", [False, True])
def test_nanoaod(tmp_path: Path, new: bool) -> None:
    truth = jetfiles.nanoaod(tmp_path / "nano.root", new=new)
    jets = open_jets(tmp_path)
    assert len(jets) == len(truth["jets"]) > 10
    assert jets.labels == ()
    for number, (members, event) in enumerate(zip(truth["jets"], truth["event"], strict=True)):
        rows = sorted((truth["rows"][event][row] for row in members), key=lambda row: -row["pt"])
        pt, eta, phi, mass = (np.array([row[name] for row in rows]) for name in ("pt", "eta", "phi", "mass"))
        momentum = pt * np.cosh(eta)
        point = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta)}
        point |= {"energy": np.hypot(momentum, mass), "charge": np.array([row["charge"] for row in rows])}
        if not new:
            for ours, theirs in (("d0", "d0"), ("z0", "dz"), ("sigma_d0", "d0Err"), ("sigma_z0", "dzErr")):
                point[ours] = np.array([10 * row[theirs] if row["charge"] else 0 for row in rows])
        kinds = {211: 0, 130: 1, 22: 2, 11: 3, 13: 4}
        found = jets[number]
        has(found, "point", point | {"type": np.array([kinds[abs(row["pdgId"])] for row in rows])})
        has(found, "scene", {name: [truth["jet"][number][name]] for name in ("pt", "eta", "phi", "mass")})
        assert found.scene["id"].tolist() == [number]
        assert ("d0" in found.point) is not new
    assert set(found.scene) == {"id", "pt", "eta", "phi", "mass"}
    assert len(TYPES) == 5


MAKERS: dict[str, Callable[..., object]] = {
    "train.h5": jetfiles.top_tagging,
    "w.hdf5": jetfiles.jetnet,
    "jets.root": jetfiles.jetclass,
    "nano.root": jetfiles.nanoaod,
}


@pytest.mark.parametrize("name", MAKERS)
@quick
@given(data=st.data())
def test_a_range_is_the_batch_of_its_jets(tmp_path: Path, name: str, data: st.DataObject) -> None:
    if not (tmp_path / name).exists():
        MAKERS[name](tmp_path / name)
    jets = open_jets(tmp_path / name)
    first = data.draw(st.integers(0, len(jets)))
    last = data.draw(st.integers(first, len(jets)))
    event = jets.range(first, last)
    assert len(event) == last - first
    whole = jets.range(0, len(jets)).take(torch.arange(first, last))
    for level in ("point", "scene"):
        assert torch.equal(event.count[level], whole.count[level])
        for column, values in getattr(whole, level).items():
            assert torch.equal(values, getattr(event, level)[column]), column


@pytest.mark.parametrize("name", MAKERS)
def test_convert(tmp_path: Path, name: str, call: Call) -> None:
    MAKERS[name](tmp_path / name)
    status, out, err = call("convert", tmp_path / name, "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    before, after = open_jets(tmp_path / name), open_jets(tmp_path / "out")
    assert f"{len(before)} jets" in out
    assert after.labels == before.labels
    one, other = before.range(0, len(before)), after.range(0, len(after))
    for level in ("point", "scene"):
        assert set(getattr(one, level)) == set(getattr(other, level))
        for column, values in getattr(one, level).items():
            assert torch.equal(values, getattr(other, level)[column]), column
    refused(call("convert", tmp_path / name, "-o", tmp_path / "out"), "jets-000000.parquet", "exists")
    refused(call("convert", tmp_path / name, "-o", tmp_path / "csv", "--format", "trackml"), "Parquet, not as trackml")


BAD: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "nan": ("a.h5", {"value": (3, "PX_0", np.nan)}, ("row 4, column PX", "a finite number", "nan")),
    "label": ("a.h5", {"value": (24, "is_signal_new", 7)}, ("row 25, column is_signal_new", "0 or 1", "7")),
    "no label": ("a.h5", {"drop": "is_signal_new"}, ("table/table", "a column is_signal_new")),
    "hole": ("a.h5", {"drop": "PY_2"}, ("a column PY_2",)),
    "no columns": ("a.h5", {"drop": "E_0"}, ("a column E_0",)),
    "names": ("a.h5", {"names": b"cos\nsystem\n(S'true'\ntR."}, ("pickled list of the names", "UnpicklingError")),
    "not names": ("a.h5", {"names": b"I7\n."}, ("pickled list of the names", "int")),
    "jetnet kind": ("x.hdf5", {}, ("g, q, t, w or z",)),
    "jetnet shape": ("g.hdf5", {"columns": 3}, ("particle_features", "(jets, particles, 4)", "3")),
    "jetnet part": ("g.hdf5", {"drop": "jet_features"}, ("jet_features", "nothing")),
    "jetnet nan": ("g.hdf5", {"value": (4, np.inf)}, ("row 5, column particle_features", "finite")),
    "part_px": ("a.root", {"value": (6, "part_px", np.nan)}, ("row 7, column part_px", "finite", "nan")),
    "d0": ("a.root", {"value": (6, "part_d0err", np.inf)}, ("row 7, column part_d0err", "finite", "inf")),
    "jet_pt": ("a.root", {"value": (2, "jet_pt", np.nan)}, ("row 3, column jet_pt", "finite")),
    "two labels": ("a.root", {"value": (2, "label_QCD", 1)}, ("row 3, column label_*", "one label of 1", "2")),
    "no type": ("a.root", {"value": (2, "part_isPhoton", 1)}, ("row 3, column part_is*", "one type of 1", "2")),
    "no energy": ("a.root", {"drop": "part_energy"}, ("tree", "a column part_energy")),
    "no part_px": ("a.root", {"drop": "part_px"}, ("no jets known here", "part_px (JetClass)", "(NanoAOD)")),
    "longer": ("a.root", {"longer": "part_pz"}, ("row 1, column part_pz", "as many as of part_px")),
    "candidate": ("n.root", {"link": ("pFCandsIdx", 99)}, ("event", "FatJetPFCands_pFCandsIdx", "PFCands", "99")),
    "jet": ("n.root", {"link": ("jetIdx", -1)}, ("event", "FatJetPFCands_jetIdx", "a row of FatJet", "-1")),
    "no eta": ("n.root", {"drop": "PFCands_eta"}, ("Events", "a column PFCands_eta")),
}


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_file_is_told_in_one_line(tmp_path: Path, case: str, call: Call) -> None:
    name, change, words = BAD[case]
    makers = {"a.h5": jetfiles.top_tagging, "a.root": jetfiles.jetclass, "n.root": jetfiles.nanoaod}
    makers.get(name, jetfiles.jetnet)(tmp_path / name, **change)
    refused(call("convert", tmp_path / name, "-o", tmp_path / "out"), name, *words)
    assert not list(tmp_path.glob("out/*.parquet")), "no half of a file is left"


@quick
@given(
    row=st.integers(0, 24),
    column=st.sampled_from(["part_px", "part_energy", "part_dzerr", "part_charge", "jet_eta", "jet_phi"]),
    number=st.sampled_from(["nan", "inf", "-inf"]),
)
def test_a_number_that_is_none_is_named(tmp_path: Path, row: int, column: str, number: str) -> None:
    jetfiles.jetclass(tmp_path / "a.root", value=(row, column, float(number)))
    jets = open_jets(tmp_path / "a.root")
    with pytest.raises(UserError, match=rf"a\.root: row {row + 1}, column {column}: expected a finite number, found"):
        jets.range(max(row - 3, 0), 25)
    assert len(jets.range(row + 1, 25)) == 24 - row


@pytest.mark.parametrize("name", MAKERS)
@quick
@given(part=st.floats(0, 0.95))
def test_a_file_cut_short(tmp_path: Path, name: str, part: float) -> None:
    if not (tmp_path / name).exists():
        MAKERS[name](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    cut = tmp_path / "cut" / name
    cut.parent.mkdir(exist_ok=True)
    cut.write_bytes(data[: int(part * len(data))])
    with pytest.raises(UserError, match=name) as caught:
        list(open_jets(cut).batches())
    assert "\n" not in str(caught.value)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    import h5py
    import uproot

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(UserError, match=r"a\.h5: no jets known here: expected .*\(TopTagging\) or .*\(JetNet\)"):
        open_jets(tmp_path / "a.h5")
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("t", {"x": np.zeros(3)})
    with pytest.raises(UserError, match=r"a\.root: no jets known here: .*\(JetClass\)"):
        open_jets(tmp_path / "a.root")
    store.write(tmp_path / "a.parquet", Event(point={"x": torch.ones(3)}))
    with pytest.raises(UserError, match=r"a\.parquet: not a file of jets: expected a column point\.px"):
        open_jets(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no jets: expected"):
        open_jets(__file__)
    with pytest.raises(UserError, match="no such file"):
        open_jets(tmp_path / "b.h5")


def test_several_formats(tmp_path: Path) -> None:
    jetfiles.top_tagging(tmp_path / "a.h5")
    jetfiles.jetclass(tmp_path / "a.root")
    with pytest.raises(UserError, match=r"several formats \(JetClass, TopTagging\)"):
        open_jets(tmp_path)


@pytest.mark.parametrize(("module", "name"), [("h5py", "train.h5"), ("uproot", "jets.root")])
def test_missing_packages(tmp_path: Path, module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS[name](tmp_path / name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"files need {module}: pip install 'cloudchamber\[jets\]'"):
        open_jets(tmp_path / name)
