"""Events that come as arrays: make an Event, find its tracks, keep it on disk.

python examples/own_events.py

The arrays are read off the simulated event that ships with the package, in the place of yours.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import awkward
import torch

from cloudchamber.data import open_events, store
from cloudchamber.event import Event
from cloudchamber.reconstruct import Reconstructor


def main() -> None:
    """From arrays to tracks."""
    hits = awkward.from_parquet(Path(str(files("cloudchamber") / "data" / "example.parquet"))).point[0]
    position = {name: torch.from_numpy(hits[name].to_numpy().copy()) for name in ("x", "y", "z")}  # mm, float32
    element = {name: torch.from_numpy(hits[name].to_numpy().copy()) for name in ("volume", "layer", "module")}  # int64
    event = Event(point={"id": torch.arange(len(hits)), **position, **element}, scene={"id": torch.tensor([1])})

    store.write("mine/event000000001.parquet", event)  # now `cloudchamber reconstruct mine -o tracks` works, too
    tracks = Reconstructor()(open_events("mine")[0])

    print(f"{event.rows('point')} hits, {tracks.rows('object')} tracks; those of largest pT:")
    for row in torch.argsort(tracks.object["pt"].nan_to_num(), descending=True)[:5].tolist():
        own = {name: float(tracks.object[name][row]) for name in ("pt", "eta", "phi", "d0", "z0")}
        print("  pT {pt:7.2f} GeV   η {eta:5.2f}   φ {phi:5.2f}   d0 {d0:7.3f} mm   z0 {z0:8.2f} mm".format(**own))


if __name__ == "__main__":
    main()
