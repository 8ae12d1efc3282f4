"""Objects that are no tracks, such as showers, on disk: predictions as a file of events."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cloudchamber.data import store
from cloudchamber.errors import UserError
from cloudchamber.event import Event

OBJECTS = "objects.parquet"


def write_objects(directory: str | Path, events: Iterable[Event]) -> None:
    """Write predictions, one after the other as they come, atomically."""
    store.write(Path(directory) / OBJECTS, events)


def holds_objects(directory: str | Path) -> bool:
    """Whether there are such predictions in a directory."""
    return (Path(directory) / OBJECTS).is_file()


def read_objects(directory: str | Path) -> dict[int, Event]:
    """The predictions by the number of their event. Raises ``UserError`` naming the file when it cannot be read."""
    path = Path(directory) / OBJECTS
    found = {}
    for event in store.EventFile(path):
        if "id" not in event.scene or int(event.scene["id"][0]) in found:
            raise UserError(f"{path}: expected events with a scene.id each, all different")
        found[int(event.scene["id"][0])] = event
    return found
