"""Full events cut into wedges of azimuth, for trainings that cannot afford whole ones: the density stays as it is.

python -m bench.wedges EVENTS -o WEDGES --number 8 --events 8
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch

from cloudchamber.data import DATASETS, open_events
from cloudchamber.errors import UserError
from cloudchamber.event import Event


def cut(event: Event, number: int) -> list[Event]:
    """The hits of an event in ``number`` equal ranges of azimuth, with the particles that have hits there, no cells.

    ``object.hits`` counts the hits that a particle has in the wedge.
    """
    azimuth = torch.atan2(event.point["y"], event.point["x"])
    place = ((azimuth / math.pi + 1) / 2 * number).long().clamp(max=number - 1)
    parts = []
    for wedge in range(number):
        point = {name: column[place == wedge] for name, column in event.point.items()}
        hits = torch.bincount(point["object"][point["object"] >= 0], minlength=event.rows("object"))
        kept = hits > 0
        row = torch.cat([torch.where(kept, kept.cumsum(0) - 1, -1), torch.tensor([-1])])
        objects = {name: column[kept] for name, column in event.object.items()} | {"hits": hits[kept]}
        parts.append(Event(point={**point, "object": row[point["object"]]}, object=objects, scene=event.scene))
    return parts


def main() -> None:
    """Cut events into wedges of azimuth."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source", type=Path, help="directory of events with truth")
    parser.add_argument("-o", dest="directory", type=Path, required=True, help="where to write")
    parser.add_argument("--number", type=int, default=8, help="wedges of an event")
    parser.add_argument("--events", type=int, default=8, help="the first so many events")
    options = parser.parse_args()
    try:
        wedges = (
            part for event in open_events(options.source)[: options.events] for part in cut(event, options.number)
        )
        for row, part in enumerate(wedges):
            part = part.with_columns("scene", id=torch.tensor([row]))
            DATASETS["parquet"].write(options.directory, f"event{row:09d}", part)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
