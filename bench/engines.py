"""PyTorch beside ONNX Runtime: every network of a model, and the whole reconstruction, on full events.

    python -m bench.engines EVENTS --threads 2 -o engines.md

writes a Markdown table. The engines take turns in one process; cells are medians over the events and repeats. ``int8``
has dynamically quantised weights, ``float16`` half precision inside: what they cost in accuracy is the last column.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.compare import machine
from bench.tracks import describe
from cloudchamber import checkpoint
from cloudchamber.checkpoint import shipped_model
from cloudchamber.data import open_events
from cloudchamber.data.store import atomic, one_line
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.export import Network, cached, stages
from cloudchamber.reconstruct import Reconstructor
from cloudchamber.threads import use_threads

Row = dict[str, Any]


def quantised(path: Path, out: Path) -> None:
    """Weights in int8, activations quantised as they come."""
    quantize: Any = importlib.import_module("onnxruntime.quantization").quantize_dynamic
    quantize(path, out)


def halved(path: Path, out: Path) -> None:
    """Everything in float16 but inputs and outputs."""
    onnx: Any = importlib.import_module("onnx")
    convert: Any = importlib.import_module("onnxruntime.transformers.float16").convert_float_to_float16
    onnx.save(convert(onnx.load(path), keep_io_types=True), out)


def variants(path: Path, local: bool, directory: Path, threads: int) -> dict[str, Network]:
    """The network of a file in the precisions that ONNX Runtime loads; why it does not load the others is printed."""
    found = {"onnx float32": Network(path, threads=threads, local=local)}
    for name, convert in (("int8", quantised), ("float16", halved)):
        out = directory / f"{name}-{path.name}"
        try:
            convert(path, out)
            found[f"onnx {name}"] = Network(out, threads=threads, local=local)
        except Exception as error:
            print(f"{path.name}: {name}: {one_line(error)}")
    return found


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Result, seconds, CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call(*arguments)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def networks(model: Path, events: Iterable[Event], repeats: int, threads: int, directory: Path) -> list[Row]:
    """Every network by every engine, on the inputs that the pipeline gives it."""
    manifest = cached(model)
    entries = json.loads(manifest.read_text())["stages"]
    found = stages(*checkpoint.load(model))
    rows: list[Row] = []
    engines: list[dict[str, Callable[..., Any]]] = [
        {"torch": task.judge, **variants(manifest.parent / entry["file"], entry["local"], directory, threads)}
        for (task, _), entry in zip(found, entries, strict=True)
    ]
    for event in events:
        for (task, run), own in zip(found, engines, strict=True):
            arrays = list(task.arrays(task.prepare(event)).values())
            expected = torch.sigmoid(own["torch"](*arrays))
            for turn in range(repeats + 1):  # the first one warms up
                for name, network in own.items():
                    out, wall, cpu = timed(network, *arrays)
                    error = float((torch.sigmoid(out) - expected).abs().max())
                    row = {"what": run.task.stage, "engine": name, "wall": wall, "cpu": cpu, "error": error}
                    rows += [row | {"rows": len(out)}] if turn else []
    return rows


def pipelines(model: Path, events: Iterable[Event], repeats: int) -> list[Row]:
    """The whole reconstruction, hits in memory to tracks in memory."""
    finders = {"torch": Reconstructor(model), "onnx float32": Reconstructor(model, "onnx")}
    rows: list[Row] = []
    for event in events:
        for turn in range(repeats + 1):
            for name, finder in finders.items():
                _, wall, cpu = timed(finder, event)
                row = {"what": "whole event", "engine": name, "wall": wall, "cpu": cpu, "rows": event.rows("point")}
                rows += [row] if turn else []
    return rows


def table(rows: list[Row], head: str) -> str:
    """Markdown: medians, and their ratio to those of PyTorch."""
    lines = [
        head,
        "",
        "| what | engine | edges (hits) | seconds | CPU s | time / torch | CPU / torch | largest error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for what in dict.fromkeys(row["what"] for row in rows):
        part = [row for row in rows if row["what"] == what]
        base: dict[str, float] = {}
        for engine in dict.fromkeys(row["engine"] for row in part):
            own = [row for row in part if row["engine"] == engine]
            median = {key: float(np.median([row[key] for row in own])) for key in ("rows", "wall", "cpu")}
            base = base or median
            error = f"{max(row['error'] for row in own):.0e}" if "error" in own[0] else ""
            lines.append(
                f"| {what} | {engine} | {median['rows']:.0f} | {median['wall']:.2f} | {median['cpu']:.2f} "
                f"| {median['wall'] / base['wall']:.2f} | {median['cpu'] / base['cpu']:.2f} | {error} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure on the events of a directory or file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("events", type=Path)
    parser.add_argument("-o", dest="path", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--model", type=Path, default=shipped_model("graph"), help="checkpoint of another model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, default=2, help="events at most")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    use_threads(options.threads)
    head = f"{describe(machine())} {options.threads} threads."
    try:
        source = open_events(options.events)
        events = [source[index] for index in range(min(len(source), options.limit))]
        with torch.inference_mode(), tempfile.TemporaryDirectory() as directory:
            rows = networks(options.model, events, options.repeats, options.threads, Path(directory))
            rows += pipelines(options.model, events, options.repeats)
        with atomic(options.path) as path:
            path.write_text(table(rows, head))
        print(options.path.read_text(), end="")
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
