"""ONNX: the networks of a checkpoint for other programs and engines, with a manifest of what goes in and comes out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cloudchamber import checkpoint
from cloudchamber.config import Run, parse
from cloudchamber.data import open_events
from cloudchamber.data.constituents import example_jets
from cloudchamber.data.store import atomic, one_line
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.tasks import Proposal, Task
from cloudchamber.tasks.inputs import COLUMNS, INPUTS, OUTPUTS

FORMAT = "cloudchamber export 1"
MANIFEST = "manifest.json"
OPSET = 20
PARITY = 1e-5  # of probabilities and of coordinates of the learned space, in float32
FEW = 300  # points of the example where each looks for neighbours
CHUNK = 32_768  # edges judged at a time where each stands by itself
INSTALL = "ONNX needs onnx, onnxscript and onnxruntime: pip install 'cloudchamber[onnx]' ({error})"


def stages(task: Task, run: Run) -> list[tuple[Task, Run]]:
    """The tasks of a pipeline with their runs: those that propose the edges of the next come before it."""
    graph = getattr(task, "graph", None)
    if not isinstance(graph, Proposal):
        return [(task, run)]
    return [*stages(graph.task, parse(cast(dict[str, Any], run.graph.run), "graph.run")), (task, run)]


def export(model: str | Path, directory: str | Path, events: Sequence[Event] | None = None) -> Path:
    """Write every network of a checkpoint as ONNX, and ``manifest.json``; gives the path of the manifest.

    The numbers of points and edges are free, 0 included, and edges may come in any order. Each network is run by ONNX
    Runtime on ``events`` (by default the one that ships, its first point, and no point) at 1 and 2 threads, and must
    give what PyTorch gives to ``PARITY``. Raises ``UserError`` when a package is missing or ``model`` is no checkpoint,
    ``RuntimeError`` for an ONNX file that computes something else.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _package(name)
    directory = Path(directory)
    task, run = checkpoint.load(model)
    checks = _example_events(task) if events is None else events
    entries = []
    for number, (stage, stage_run) in enumerate(stages(task, run), start=1):
        name = f"{number}-{re.sub(r'[^A-Za-z0-9_-]+', '-', stage_run.task.stage)}.onnx"
        with torch.inference_mode():
            arrays = [stage.arrays(stage.prepare(event)) for event in checks]
            described = _describe(stage, stage_run, arrays[0])
        with atomic(directory / name) as path:
            path.write_bytes(_convert(stage, arrays[0]))
            with torch.inference_mode():
                parity = max(compare(stage, given, path, threads) for given in arrays for threads in (1, 2))
            if not parity <= PARITY:
                raise RuntimeError(f"{name}: differs from PyTorch by {parity:.1e}, expected at most {PARITY:.0e}")
            entries.append({"file": name, "sha256": _sha256(path), "parity": parity} | described)
    manifest = {
        "format": FORMAT,
        "version": version("cloudchamber"),
        "opset": OPSET,
        "checkpoint": {"file": Path(model).name, "sha256": _sha256(Path(model))},
        "stages": entries,
        "run": run.to_dict(),
    }
    with atomic(directory / MANIFEST) as path:
        path.write_text(json.dumps(manifest, indent=1) + "\n")
    return directory / MANIFEST


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(INSTALL.format(error=error)) from None


def _example_events(task: Task) -> list[Event]:
    if task.packed:
        return [example_jets(), example_jets((3,)), example_jets((0,))]
    (event,) = open_events(Path(str(files("cloudchamber") / "data" / "example.parquet")))
    names = ("id", "x", "y", "z", "volume", "layer")
    point = {name: event.point[name] for name in names}
    if getattr(task, "neighbours", 0):  # all distances are computed
        point = {name: column[:FEW] for name, column in point.items()}
    own = [name for name in task.columns.get("point", ()) if name not in (*COLUMNS["point"], *point)]
    point |= {name: torch.rand(len(point["id"]), generator=torch.Generator().manual_seed(1)) for name in own}
    return [Event(point={name: column[:rows] for name, column in point.items()}) for rows in (None, 1, 0)]


class _Padded(nn.Module):
    """``Task.judge`` on one point more and an edge of it to itself, before all others, cut off again at the end.

    So no tensor is empty, and the first segment has rows, as ``segment_sum`` needs it when it is exported. The
    table ``slot`` gets a jet of that point, and as many columns without points as a point asks for neighbours.
    """

    def __init__(self, task: Task, names: Sequence[str]) -> None:
        super().__init__()
        self.task = task
        self.slot = "slot" in names
        self.empty = getattr(task, "neighbours", 0)
        self.shift = [int(name in ("sender", "receiver")) for name in names]  # rows of points

    def forward(self, *arrays: Tensor) -> Tensor:
        if self.slot:
            slot = functional.pad(torch.where(arrays[-1] < 0, -1, arrays[-1] + 1), (1, self.empty, 1, 0), value=-1)
            corner = torch.arange(slot.shape[1]) + slot.shape[1] * torch.arange(slot.shape[0]).unsqueeze(1)
            slot = torch.where(corner == 0, 0, slot)
            arrays = arrays[:-1]
        first = [rows.new_zeros((1, *rows.shape[1:])) for rows in arrays]
        padded = [torch.cat([zero, rows + by]) for zero, rows, by in zip(first, arrays, self.shift, strict=False)]
        return self.task.judge(*padded, *([slot] if self.slot else []))[1:]


def _convert(task: Task, arrays: dict[str, Tensor]) -> bytes:
    """The network of a task as ONNX, without the places in the source code that PyTorch notes in it."""
    rows = {"point": 3, "edge": 5, "object": 4, "scene": 2}  # any numbers above 1: they are not kept
    level = {name: INPUTS[name][0] for name in arrays}
    example = [given.new_zeros((rows[level[name]], *given.shape[1:])) for name, given in arrays.items()]
    if "slot" in arrays:
        example[-1] = torch.tensor([[0, 1, -1, -1, -1], [2, -1, -1, -1, -1]])
    free = {name: torch.export.Dim(f"{name}s") for name in dict.fromkeys([*level.values(), "slot"])}
    frozen = _Padded(task, list(arrays)).requires_grad_(False).eval()
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            frozen,
            tuple(example),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(
                tuple({0: free[level[name]]} | ({1: free["slot"]} if name == "slot" else {}) for name in arrays),
            ),
            input_names=list(arrays),
            output_names=[task.output.partition(".")[2]],
            verbose=False,
        )
    model = cast(Any, program).model_proto
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    return cast(bytes, model.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not needed and on its own use of PyTorch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def _describe(task: Task, run: Run, arrays: dict[str, Tensor]) -> dict[str, Any]:
    """What a user of the file must know of it."""
    inputs = []
    for name, given in arrays.items():
        rows, meaning = INPUTS[name]
        shape = [f"{rows}s", *(["slots"] if name == "slot" else given.shape[1:])]
        entry = {"name": name, "dtype": str(given.dtype)[6:], "shape": shape}
        explained = [(column, *COLUMNS[name].get(column, ("", ""))) for column in task.columns.get(name, ())]
        columns = [dict(zip(("name", "meaning", "unit"), words, strict=True)) for words in explained]
        inputs.append({**entry, "meaning": meaning} | ({"columns": columns} if columns else {}))
    level, _, name = task.output.partition(".")
    shape = [f"{level}s", *task.judge(*arrays.values()).shape[1:]]
    output = {"name": name, "dtype": "float32", "shape": shape, "meaning": OUTPUTS[task.output]}
    # Without message passing an edge may be judged with nothing but its two points.
    local = "edge" not in arrays or run.model.depth == 0
    return {"stage": run.task.stage, "task": run.task.kind, "local": local, "inputs": inputs, "outputs": [output]}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Network:
    """An exported network in ONNX Runtime, to be called as ``Task.judge``; ``threads`` 0 for as many as PyTorch has.

    ``local``: edges are judged some at a time, each with its points, so that they stay in the cache.
    """

    def __init__(self, path: str | Path, *, threads: int = 0, local: bool = False) -> None:
        onnxruntime = _package("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait cost CPU time
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many types, all of the engine's own
            raise UserError(f"{path}: not to be read by ONNX Runtime: {one_line(error)}") from None
        self.names = [item.name for item in self.session.get_inputs()]
        self.local = local and "edge" in self.names

    def __call__(self, *arrays: Tensor) -> Tensor:
        """Inputs in the order of the manifest, on the CPU."""
        given = [rows.contiguous().numpy() for rows in arrays]
        if not self.local or len(given[2]) <= CHUNK:
            return torch.from_numpy(self._run(given))
        point, layer, edge, sender, receiver = given
        out, place = np.empty(len(edge), np.float32), np.empty(len(point), np.int64)
        for start in range(0, len(edge), CHUNK):
            part = slice(start, start + CHUNK)
            used = np.zeros(len(point), bool)
            used[sender[part]] = used[receiver[part]] = True
            rows = np.flatnonzero(used)
            place[rows] = np.arange(len(rows))
            out[part] = self._run([point[rows], layer[rows], edge[part], place[sender[part]], place[receiver[part]]])
        return torch.from_numpy(out)

    def _run(self, given: Sequence[Any]) -> Any:
        return self.session.run(None, dict(zip(self.names, given, strict=True)))[0]


def compare(task: Task, arrays: dict[str, Tensor], path: str | Path, threads: int) -> float:
    """The largest difference of an ONNX file from ``task.judge``: of probabilities where it gives logits; else relative
    to the largest value where that is above 1."""
    results = task.judge(*arrays.values()), Network(path, threads=threads)(*arrays.values())
    expected, found = (torch.sigmoid(out) if task.output.endswith("logit") else out for out in results)
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1)) if expected.numel() else 0.0


def cached(model: str | Path) -> Path:
    """The manifest of a checkpoint's export, made once and kept in the user's cache (``$XDG_CACHE_HOME``)."""
    if not Path(model).is_file():
        raise UserError(f"{model}: no such checkpoint")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(f"{FORMAT} {version('cloudchamber')} {_sha256(Path(model))}".encode()).hexdigest()[:16]
    path = base / "cloudchamber" / f"onnx-{key}" / MANIFEST
    return path if path.is_file() else export(model, path.parent)  # the manifest is written last


def use_onnx(task: Task, run: Run, model: str | Path) -> None:
    """Let ONNX Runtime judge in all stages of a task from the checkpoint ``model``; see ``cached``."""
    path = cached(model)
    entries = json.loads(path.read_text())["stages"]
    for (stage, _), entry in zip(stages(task, run), entries, strict=True):
        network = Network(path.parent / entry["file"], local=entry["local"])
        stage.judge = network  # type: ignore[method-assign]
