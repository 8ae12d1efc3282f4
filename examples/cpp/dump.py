"""Inputs of a network for score.cpp, and what Python makes of them.

python dump.py DIR             writes the last edge network of the model that ships, its inputs for an event, and logits
python dump.py DIR --compare   compares these with what score wrote
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from cloudchamber import checkpoint
from cloudchamber.checkpoint import shipped_model
from cloudchamber.data import open_events
from cloudchamber.export import export, stages


def write_input(path: Path, arrays: dict[str, torch.Tensor]) -> None:
    """The inputs of ``Task.judge`` in one file, as score.cpp reads them."""
    with path.open("wb") as file:
        for tensor in arrays.values():
            size = np.array([tensor.dtype == torch.int64, tensor.ndim, *tensor.shape], "<i8")
            values = tensor.numpy()
            file.write(size.tobytes() + values.astype(values.dtype.newbyteorder("<")).tobytes())


def main() -> None:
    """Write or compare."""
    directory = Path(sys.argv[1])
    if "--compare" in sys.argv:
        found, expected = (np.fromfile(directory / name, "<f4") for name in ("output", "expected"))
        difference = np.abs(1 / (1 + np.exp(-found)) - 1 / (1 + np.exp(-expected))).max(initial=0)
        print(f"{len(expected)} edges: probabilities differ by at most {difference:.1e}")
        sys.exit(not (len(found) == len(expected) and difference <= 1e-5))
    entries = json.loads(export(shipped_model("graph"), directory).read_text())["stages"]
    found = [
        (task, entry)
        for (task, _), entry in zip(stages(*checkpoint.load(shipped_model("graph"))), entries, strict=True)
    ]
    task, entry = [pair for pair in found if pair[0].output == "edge.logit"][-1]
    shutil.copy(directory / entry["file"], directory / "network.onnx")
    (event,) = open_events(Path(str(files("cloudchamber") / "data" / "example.parquet")))
    with torch.inference_mode():
        arrays = task.arrays(task.prepare(event))
        task.judge(*arrays.values()).numpy().astype("<f4").tofile(directory / "expected")
    write_input(directory / "input", arrays)


if __name__ == "__main__":
    main()
