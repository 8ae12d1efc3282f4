"""Export to ONNX: the same scores as PyTorch's on graphs of any size, and a manifest that tells how to get them."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloudchamber import checkpoint
from cloudchamber.config import parse
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.export import COLUMNS, INPUTS, MANIFEST, OUTPUTS, PARITY, Network, export, stages, use_onnx
from cloudchamber.reconstruct import Reconstructor
from cloudchamber.tasks import TASKS, Task
from cloudchamber.tasks.quality import Quality

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CPP = Path(__file__).parents[1] / "examples" / "cpp"

#: Checkpoints of every task and several depths; the weights of a graph are those of another one of them.
RAW: dict[str, dict[str, Any]] = {
    "filter": {
        "model": {"kind": "message", "width": 6, "depth": 0, "hidden": 2},
        "task": {"kind": "edges", "threshold": 0.3, "track_hits": 3},
    },
    "chain": {
        "model": {"kind": "message", "width": 9, "depth": 2, "recompute": True},
        "task": {"kind": "edges", "stage": "the network/2"},
        "graph": {"kind": "task", "weights": "filter"},
    },
    "quality": {
        "model": {"kind": "mlp", "width": 7},
        "task": {"kind": "quality"},
        "graph": {"kind": "task", "weights": "filter"},
    },
    "follow": {
        "model": {"kind": "mlp", "width": 7},
        "task": {"kind": "quality", "compress": True},
        "graph": {"kind": "follow"},
    },
    "embed": {"model": {"kind": "mlp", "width": 9}, "task": {"kind": "embed", "dimensions": 4}},
    "condense": {
        "model": {"kind": "message", "width": 6, "depth": 2},
        "task": {
            "kind": "condense",
            "layered": True,
            "columns": ["eta", "radius"],
            "start": ["eta"],
            "payload": ["pz"],
            "helix": True,
            "threshold": 0.0,
        },
        "graph": {"kind": "task", "weights": "filter"},
    },
    "judged": {
        "model": {"kind": "mlp", "width": 7},
        "task": {"kind": "quality"},
        "graph": {"kind": "task", "weights": "condense"},
    },
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, toys: list[Event]) -> Callable[[str], tuple[Path, Path]]:
    """A checkpoint and the directory of its export, by the name of its settings; made once each."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in made:
            directory = tmp_path_factory.mktemp(name)
            raw = dict(RAW[name])
            if "weights" in raw.get("graph", ()):
                raw["graph"] = {**raw["graph"], "weights": str(make(raw["graph"]["weights"])[0])}
            run, task = checkpoint.start(parse(raw, "test"))
            task.fit(toys)
            if isinstance(task, Quality):
                # Toys are so alike that some columns are constant: what differs from them would be huge.
                task.scale.deviation.clamp_(min=0.1)
            path = directory / "model.safetensors"
            checkpoint.save(path, {f"weights/{key}": tensor for key, tensor in task.state_dict().items()}, run)
            export(path, directory / "onnx", toys[:1])
            made[name] = path, directory / "onnx"
        return made[name]

    return make


def networks(name: str) -> int:
    """How many networks a checkpoint holds, those of its graphs among them."""
    weights = RAW[name].get("graph", {}).get("weights")
    return 1 + (networks(weights) if weights else 0)


def manifest(directory: Path) -> dict[str, Any]:
    """The manifest of an export."""
    found: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
    return found


def cloud(task: Task, points: int, edges: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs of ``task.judge``: features over orders of magnitude, every other edge ends in one of twenty points."""
    random = np.random.default_rng(seed)

    def features(rows: int, columns: int) -> torch.Tensor:
        wide = random.normal(0, 1, (rows, columns)) * 10 ** random.uniform(-3, 3, (rows, columns))
        return torch.from_numpy(wide.astype(np.float32))

    if "object" in task.columns:
        return {"object": features(points, len(task.columns["object"])).abs()}  # as ``Quality.arrays`` gives them
    found = {"point": features(points, len(task.columns["point"]))}
    found["layer"] = torch.from_numpy(random.integers(0, 3000, points))
    if "edge" in task.columns:
        found["edge"] = features(edges, len(task.columns["edge"]))
        sender, receiver = random.integers(0, max(points, 1), (2, edges))
        receiver[::2] %= 20
        found |= {"sender": torch.from_numpy(sender), "receiver": torch.from_numpy(receiver)}
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", RAW)
def test_onnx_gives_what_pytorch_gives(exported: Callable[[str], tuple[Path, Path]], name: str, threads: int) -> None:
    path, directory = exported(name)
    entries = manifest(directory)["stages"]
    found = stages(*checkpoint.load(path))
    assert len(found) == len(entries) == networks(name)
    for (task, _), entry in zip(found, entries, strict=True):
        network = Network(directory / entry["file"], threads=threads, local=entry["local"])
        for points, edges in [(0, 0), (1, 0), (1, 3), (2, 1), (50, 0), (40, 300), (10_000, 100_000)]:
            arrays = cloud(task, points, edges)
            with torch.inference_mode():
                wanted = task.judge(*arrays.values())
            for _ in range(3 if threads > 1 else 1):  # threads that race do not lose every time
                result, expected = network(*arrays.values()), wanted
                assert result.shape == expected.shape
                assert result.dtype == torch.float32
                if task.output == "object.logit":  # of columns that hardly vary the scale is so fine that errors grow
                    result, expected = torch.sigmoid(result), torch.sigmoid(expected)
                torch.testing.assert_close(result, expected, rtol=PARITY, atol=PARITY)


@pytest.mark.parametrize("name", RAW)
def test_the_manifest_tells_all_that_a_user_needs(exported: Callable[[str], tuple[Path, Path]], name: str) -> None:
    path, directory = exported(name)
    found = manifest(directory)
    assert found["version"] == checkpoint.version("cloudchamber")
    assert found["checkpoint"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert parse(found["run"], "manifest") == checkpoint.load(path)[1]
    for (task, run), entry in zip(stages(*checkpoint.load(path)), found["stages"], strict=True):
        assert entry["sha256"] == hashlib.sha256((directory / entry["file"]).read_bytes()).hexdigest()
        assert (entry["stage"], entry["task"]) == (run.task.stage, run.task.kind)
        assert entry["parity"] <= PARITY
        assert entry["local"] == (run.task.kind not in ("edges", "condense") or run.model.depth == 0)
        session = Network(directory / entry["file"]).session
        for own, told in zip(
            [*session.get_inputs(), *session.get_outputs()], entry["inputs"] + entry["outputs"], strict=True
        ):
            assert own.name == told["name"]
            assert own.type == {"float32": "tensor(float)", "int64": "tensor(int64)"}[told["dtype"]]
            assert own.shape[1:] == told["shape"][1:]
            assert not isinstance(own.shape[0], int)
            if told["name"] in task.columns:
                assert tuple(column["name"] for column in told["columns"]) == task.columns[told["name"]]
                assert all(column["meaning"] for column in told["columns"])


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_is_exported(kind: str) -> None:
    assert kind == "tag" or any(raw["task"]["kind"] == kind for raw in RAW.values())  # tests/test_export_tag.py
    assert TASKS[kind][1].output in OUTPUTS


@pytest.mark.parametrize("name", RAW)
def test_columns_are_explained(name: str, exported: Callable[[str], tuple[Path, Path]]) -> None:
    task = checkpoint.load(exported(name)[0])[0]
    for name, columns in task.columns.items():
        assert name in INPUTS
        assert set(columns) <= COLUMNS[name].keys()


def test_files_name_no_place_on_this_machine(exported: Callable[[str], tuple[Path, Path]]) -> None:
    directory = exported("chain")[1]
    assert sorted(path.name for path in directory.iterdir()) == [
        "1-network.onnx",
        "2-the-network-2.onnx",
        MANIFEST,
    ]
    for path in directory.iterdir():
        assert str(Path.cwd()).encode() not in path.read_bytes()
        assert b".py" not in path.read_bytes()


def test_parts_of_the_edges_give_what_all_give(exported: Callable[[str], tuple[Path, Path]]) -> None:
    path, directory = exported("filter")
    task, _ = checkpoint.load(path)
    (entry,) = manifest(directory)["stages"]
    arrays = list(cloud(task, 700, 70_001).values())
    whole, parts = (Network(directory / entry["file"], local=local)(*arrays) for local in (False, True))
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)


def test_another_network_is_refused(
    exported: Callable[[str], tuple[Path, Path]], tmp_path: Path, toys: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, directory = exported("embed")
    wrong = (directory / manifest(directory)["stages"][0]["file"]).read_bytes()
    tensors, run, _ = checkpoint.read(path)
    changed = tmp_path / "changed.safetensors"
    checkpoint.save(changed, {name: 1.01 * tensor for name, tensor in tensors.items()}, run)
    monkeypatch.setattr("cloudchamber.export._convert", lambda task, arrays: wrong)
    with pytest.raises(RuntimeError, match=r"1-embedding.onnx: differs from PyTorch by"):
        export(changed, tmp_path / "out", toys[:1])
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(
    exported: Callable[[str], tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    path, _ = exported("embed")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'cloudchamber\[onnx\]'"):
        export(path, tmp_path / "out")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        export(tmp_path / "none", tmp_path / "out")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"bad.onnx: not to be read by ONNX Runtime: \S"):
        Network(tmp_path / "bad.onnx")


def test_the_engine_proposes_the_same_edges(
    exported: Callable[[str], tuple[Path, Path]], toys: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, directory = exported("chain")
    calls = []

    def copy(model: Path, where: Path) -> Path:
        calls.append(model)
        shutil.copytree(directory, where)
        return where / MANIFEST

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("cloudchamber.export.export", copy)
    for _ in range(2):  # the second time from the cache
        task, run = checkpoint.load(path)
        with torch.inference_mode():
            prepared = task.prepare(toys[0])
            expected = task(prepared)
            use_onnx(task, run, path)
            again = task.prepare(toys[0])
            torch.testing.assert_close(task(again), expected, rtol=PARITY, atol=PARITY)
        assert torch.equal(again.edge["sender"], prepared.edge["sender"])
    assert calls == [path]


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ program."""
    places = [os.environ.get("ORT_INCLUDE", ""), str(CPP / "build" / "include"), "/usr/include/onnxruntime"]
    include = next((place for place in places if (Path(place) / "onnxruntime_cxx_api.h").is_file()), None)
    if not (shutil.which("make") and shutil.which("g++")):
        pytest.skip("no make and g++")
    if include is None:
        pytest.skip("no headers of ONNX Runtime: see examples/cpp/Makefile, or name their folder in ORT_INCLUDE")
    build = tmp_path_factory.mktemp("cpp")
    settings = [
        f"PYTHON={sys.executable}",
        f"ORT_INCLUDE={include}",
        f"BUILD={build}",
        "CXX=g++",
        "CXXFLAGS=-O0 -Werror",
    ]
    subprocess.run(["make", "-C", CPP, build / "score", *settings], check=True, capture_output=True)
    return build / "score"


@pytest.mark.parametrize(("name", "points", "edges"), [("chain", 300, 5000), ("chain", 0, 0), ("quality", 70, 0)])
def test_the_cpp_program_gives_what_python_gives(
    exported: Callable[[str], tuple[Path, Path]], score: Path, tmp_path: Path, name: str, points: int, edges: int
) -> None:
    path, directory = exported(name)
    write_input = runpy.run_path(str(CPP / "dump.py"))["write_input"]
    for (task, _), entry in zip(stages(*checkpoint.load(path)), manifest(directory)["stages"], strict=True):
        arrays = cloud(task, points, edges)
        write_input(tmp_path / "input", arrays)
        call = [score, directory / entry["file"], tmp_path / "input", tmp_path / "output"]
        for threads in ("1", "2"):
            subprocess.run([*call, threads], check=True, capture_output=True)
            with torch.inference_mode():
                expected = task.judge(*arrays.values())
            found = torch.from_numpy(np.fromfile(tmp_path / "output", np.float32)).reshape(expected.shape)
            torch.testing.assert_close(found, expected, rtol=PARITY, atol=PARITY)


def test_the_cpp_program_refuses_an_input_cut_short(
    exported: Callable[[str], tuple[Path, Path]], score: Path, tmp_path: Path
) -> None:
    directory = exported("embed")[1]
    np.array([0, 2, 5, 4]).tofile(tmp_path / "input")
    call = [score, directory / "1-embedding.onnx", tmp_path / "input", tmp_path / "output"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "score: the input ends too early\n")


def test_reconstruct_takes_the_engine(
    exported: Callable[[str], tuple[Path, Path]], toys: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, directory = exported("filter")
    monkeypatch.setattr("cloudchamber.export.cached", lambda model: directory / MANIFEST)
    finder = Reconstructor(path, "onnx")
    assert isinstance(finder.task.judge, Network)
    assert torch.equal(finder(toys[0]).point["object"], Reconstructor(path)(toys[0]).point["object"])
