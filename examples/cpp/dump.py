"""Inputs of a network for score.cpp, and what Python makes of them.

python dump.py DIR             writes the network of the model that ships, its inputs for the example event, and logits
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
from cloudchamber.data import open_events
from cloudchamber.export import export
from cloudchamber.reconstruct import shipped_model


def write_input(path: Path, arrays: dict[str, torch.Tensor]) -> None:
    """The inputs of ``Task.judge`` in one file, as score.cpp reads them."""
    edge = arrays.get("edge", torch.zeros(0, 0))
    size = np.array([len(arrays["point"]), len(edge), arrays["point"].shape[1], edge.shape[1]], "<i8")
    with path.open("wb") as file:
        for array in (size, *(tensor.numpy() for tensor in arrays.values())):
            file.write(array.astype(array.dtype.newbyteorder("<")).tobytes())


def main() -> None:
    """Write or compare."""
    directory = Path(sys.argv[1])
    if "--compare" in sys.argv:
        found, expected = (np.fromfile(directory / name, "<f4") for name in ("output", "expected"))
        difference = np.abs(1 / (1 + np.exp(-found)) - 1 / (1 + np.exp(-expected))).max(initial=0)
        print(f"{len(expected)} edges: probabilities differ by at most {difference:.1e}")
        sys.exit(not (len(found) == len(expected) and difference <= 1e-5))
    manifest = export(shipped_model(), directory)
    shutil.copy(directory / json.loads(manifest.read_text())["stages"][-1]["file"], directory / "network.onnx")
    task, _ = checkpoint.load(shipped_model())
    with torch.inference_mode():
        arrays = task.arrays(
            task.prepare(open_events(Path(str(files("cloudchamber") / "data" / "example.parquet")))[0])
        )
        task.judge(*arrays.values()).numpy().astype("<f4").tofile(directory / "expected")
    write_input(directory / "input", arrays)


if __name__ == "__main__":
    main()
