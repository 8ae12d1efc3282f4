"""The interactive event display: one HTML file that needs no network and no library."""

from __future__ import annotations

import base64
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics import Match, matched
from cloudchamber.report.geometry import (
    PARAMETERS,
    Picture,
    array,
    flight_order,
    layers,
    objects,
    picture,
    track_parameters,
)

_LARGEST = 32767  # of int16: positions are stored in steps of 0.1 mm in a detector of 3 m
_LEAST_HITS = 3  # of a particle worth calling missed


def write_display(
    event: Event, predicted: Event, path: str | Path, truth: Event | None = None, *, title: str | None = None
) -> None:
    """Write an event display: hits, and tracks as lines through their hits, turned and picked in any web browser.

    ``event`` and ``predicted`` as in ``plot_event``; ``truth``, which may be ``event`` itself, adds noise hits, matched
    and fake tracks (double majority) and missed particles. Hits correspond by ``point.id``. Raises ``UserError`` for
    several events, positions that are missing or not finite, hits that do not correspond, or a path that cannot be
    written.
    """
    drawn = picture(event, predicted)
    on_track = np.zeros(len(drawn.xyz), dtype=bool)
    on_track[drawn.path] = True
    order = np.concatenate([drawn.path, np.flatnonzero(~on_track)])
    number = event.scene.get("id")
    name = title if title is not None else (f"Event {int(array(number)[0])}" if number is not None else "Event")
    page: dict[str, Any] = {"title": name, **_hits(drawn, order), "tracks": _tracks(drawn.bounds, drawn.parameters)}
    page["layers"] = _pack(layers(event), "<f4")
    if truth is not None:
        page |= _truth(event, predicted, truth, drawn, order)
    room = files("cloudchamber.report")
    text = (room / "display.html").read_text(encoding="utf-8")
    data = json.dumps(page, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {"title": html.escape(name), "script": (room / "display.js").read_text(encoding="utf-8"), "data": data}
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], text)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _hits(drawn: Picture, order: NDArray[np.int64]) -> dict[str, Any]:
    """Positions in ``order``, tracks first, as int16 multiples of ``step`` mm: all x, all y, all z."""
    step = max(float(np.abs(drawn.xyz).max(initial=1.0)), 1e-3) / _LARGEST
    return {"step": step, "xyz": _pack(np.round(drawn.xyz[order].astype(np.float64) / step).T, "<i2")}


def _tracks(bounds: NDArray[np.int64], parameters: dict[str, NDArray[np.float32]]) -> dict[str, str]:
    columns = {name: _pack(parameters[name], "<f4") for name in PARAMETERS}
    return {"hits": _pack(np.diff(bounds), "<u4"), **columns}


def _truth(event: Event, predicted: Event, truth: Event, drawn: Picture, order: NDArray[np.int64]) -> dict[str, Any]:
    """Noise hits, matched tracks with their purity, and the particles that were missed."""
    if len(truth) != 1:
        raise UserError(f"can draw one event at a time, got a truth of {len(truth)}: unbatch first")
    match = Match.of(predicted, truth)
    good = matched(match)
    purity = match.majority_shared / np.maximum(match.track_hits, 1)
    particle = objects(event, truth)
    missed = match.particle_hits >= _LEAST_HITS
    missed[match.majority[good]] = False
    row = np.append(np.where(missed, np.cumsum(missed) - 1, -1), -1)
    path, bounds = flight_order(drawn.xyz, row[particle], int(missed.sum()))
    parameters = {k: v[missed] for k, v in track_parameters(truth.object, truth.rows("object")).items()}
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return {
        "noise": _pack(particle[order] < 0, "u1"),
        "match": _pack(good, "u1"),
        "purity": _pack(purity, "<f4"),
        "missed": {"path": _pack(place[path], "<u4"), **_tracks(bounds, parameters)},
    }


def _pack(values: NDArray[Any], kind: str) -> str:
    """An array as base64, in the type that the page expects; a browser's arrays are little-endian."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")
