"""Showers in a calorimeter: condensation beside classical clusterings, on the same events.

    python -m bench.showers -o bench-showers [--model showers]

simulates validation (seed 2) and test events (seed 3), tunes the clusterings on the former, scores all on the latter,
and writes ``showers.md``, ``showers.json`` and plots. ``--help`` lists the settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.clusterings import PEERS
from bench.compare import machine
from bench.tracks import describe, write
from cloudchamber import checkpoint
from cloudchamber.data.sampling import MOLIERE
from cloudchamber.data.showers import ShowersConfig, simulate
from cloudchamber.errors import UserError
from cloudchamber.evaluate import ISOLATED, PAIR
from cloudchamber.event import Event
from cloudchamber.metrics import Showers
from cloudchamber.report import SHOWER_COLUMNS, markdown_table, plot_showers, shower_row
from cloudchamber.tasks.condense import Condense
from cloudchamber.tasks.share import beside

#: GeV: clusters below are left out, in every finder.
LEAST = 0.5
#: Moliere radii: a cell belongs to no shower whose axis is farther.
BESIDE = 4.0
OURS, AXES, TRUTH, FULL = "condensation", "true axes", "true clusters", "full sum"
#: Settings of condensation among which the validation events choose.
DECODING = [
    {"threshold": threshold, "radius": radius, "lateral": lateral}
    for threshold, radius, lateral in product((0.1, 0.3, 0.5), (0.5, 0.6, 0.7), (0.0, 1.4, 1.8, 2.5))
]

ABOUT = f"""A shower is found when a cluster has more than half of its energy, which is more than half of the cluster's
(docs/metrics.md). Clusters below {LEAST:g} GeV are left out. Separation: pairs of showers within {PAIR:g} Molière
radii ({PAIR * MOLIERE:.0f} mm) of which both are found. Resolution: half of the middle 68.3% of measured over true
energy, over the median, of found showers that are isolated (no other within {ISOLATED:g} Molière radii) and of the
others. The energy of a cluster is the sum of its cells times a constant that makes the median right on the validation
events, that of {OURS} the regressed one. {AXES.capitalize()}: every cell with the shower whose axis passes nearest,
within {BESIDE:g} Molière radii. {TRUTH.capitalize()}: every cell with the shower that has left most in it. Full sum:
all that an isolated shower has left above threshold. Finders are tuned on the validation events, to make efficiency
plus separation less fakes less splits as large as can be."""

Finder = Callable[[Event], Event]


def to_event(event: Event, label: NDArray[Any], scale: float = 1.0) -> Event:
    """Labels as a prediction: clusters of at least ``LEAST`` GeV and their energy, the scaled sum of their cells."""
    energy = event.point["energy"].numpy() * scale
    sums = np.bincount(label[label >= 0], energy[label >= 0], minlength=int(label.max(initial=-1)) + 1)
    kept = sums >= LEAST
    number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)[label]
    return Event(point={"object": torch.from_numpy(number)}, object={"energy": torch.from_numpy(sums[kept])})


def compare(found: Iterable[Event], events: Sequence[Event]) -> Showers:
    """Clusters, event by event, against the showers."""
    pairs = zip(found, events, strict=True)
    return Showers.join([Showers.of(predicted, event, PAIR * MOLIERE) for predicted, event in pairs])


def score(find: Finder, events: Sequence[Event]) -> Showers:
    """A finder's clusters against the showers of all events."""
    return compare(map(find, events), events)


def aim(found: Showers) -> float:
    """What the tuning makes large."""
    rates = found.efficiency(), found.separation(), found.fake_rate(), found.split_rate()
    efficiency, separation, fake, split = (float(np.nan_to_num(rate.value)) for rate in rates)
    return efficiency + separation - fake - split


def apply(cluster: Callable[[Event], NDArray[Any]], event: Event) -> Event:
    """What a clustering makes of an event."""
    return to_event(event, cluster(event))


def calibrated(cluster: Callable[[Event], NDArray[Any]], events: Sequence[Event]) -> Finder:
    """A clustering with the scale that makes the median response 1."""
    plain = score(partial(apply, cluster), events)
    scale = 1 / float(np.nanmedian(plain.measured / plain.energy))
    return lambda event: to_event(event, cluster(event), scale)


def tune(name: str, events: Sequence[Event]) -> tuple[Finder, dict[str, float]]:
    """A clustering of ``PEERS`` with its best settings, and these."""
    function, settings = PEERS[name]
    clusterings = [partial(function, **chosen) for chosen in settings]
    aims = [aim(score(partial(apply, own), events)) for own in clusterings]
    best = int(np.argmax(aims))
    return calibrated(clusterings[best], events), settings[best]


def condensation(path: Path, events: Sequence[Event]) -> tuple[Finder, dict[str, float]]:
    """A trained model with its best ``DECODING``, and this; its clusters below ``LEAST`` GeV are left out."""
    task, run = checkpoint.load(checkpoint.model_path(path))
    if not isinstance(task, Condense):
        raise UserError(f"{path}: expected a model of kind 'condense', found {run.task.kind!r}")

    def seen(event: Event) -> tuple[Event, Sequence[torch.Tensor]]:
        prepared = task.prepare(event)
        with torch.inference_mode():
            return prepared, task(prepared)

    def clusters(chosen: dict[str, float], prepared: Event, outputs: Sequence[torch.Tensor]) -> Event:
        task.config = replace(run.task, **chosen)
        found = task.found(prepared, outputs)
        kept = found.object["energy"] >= LEAST
        number = torch.where(kept, kept.cumsum(0) - 1, -1)
        label = torch.cat([number, torch.tensor([-1])])[found.point["object"]]
        return Event(point={"object": label}, object={"energy": found.object["energy"][kept]})

    known = [seen(event) for event in events]  # the network runs once for all ways to decode
    best = max(DECODING, key=lambda chosen: aim(compare((clusters(chosen, *own) for own in known), events)))
    return lambda event: clusters(best, *seen(event)), best


def axes(event: Event) -> NDArray[Any]:
    """The shower whose true axis passes nearest to each cell, -1 for none within ``BESIDE``."""
    cells, showers = event.rows("point"), event.rows("object")
    if not showers:
        return np.full(cells, -1)
    point, object = torch.cartesian_prod(torch.arange(cells), torch.arange(showers)).T
    least, nearest = beside(event, event.object, point, object).reshape(cells, showers).min(1)
    return torch.where(least < BESIDE * MOLIERE, nearest, -1).numpy()


def full(events: Sequence[Event], found: Showers) -> Showers:
    """As if every shower were found with all that it has left above threshold."""
    return replace(
        found, measured=np.concatenate([event.object["seen"].numpy() for event in events]).astype(np.float64)
    )


def run(options: argparse.Namespace) -> None:
    """Events, finders, and the files."""
    valid, test = (
        list(simulate(ShowersConfig(seed=seed, library=library), number, options.directory / f"seed{seed}"))
        for seed, number, library in ((2, options.valid, options.valid_library), (3, options.events, options.library))
    )
    finders: dict[str, Finder] = {}
    chosen: dict[str, dict[str, float]] = {}
    if options.model:
        finders[OURS], chosen[OURS] = condensation(options.model, valid)
    for name in PEERS:
        finders[name], chosen[name] = tune(name, valid)
    for name, settings in chosen.items():
        print(f"{name}: {settings}", flush=True)
    finders[AXES] = calibrated(axes, valid)
    finders[TRUTH] = calibrated(lambda event: event.point["object"].numpy(), valid)
    found = {name: score(find, test) for name, find in finders.items()}
    rows = [shower_row(name, own) for name, own in found.items()]
    found[FULL] = full(test, found[TRUTH])
    rows.append(
        {key: value for key, value in shower_row(FULL, found[FULL]).items() if key in ("name", "response", "isolated")}
    )
    counts = f"{len(test)} events, {len(found[TRUTH].energy)} showers, {len(found[TRUTH].pair)} close pairs"
    tuned = "\n".join(f"- {name}: " + ", ".join(f"{k} {v:g}" for k, v in own.items()) for name, own in chosen.items())
    parts = ["# Showers", describe(machine()), counts + ".", markdown_table(rows, SHOWER_COLUMNS), ABOUT, tuned]
    text = "\n\n".join(parts)
    print(text)
    options.directory.mkdir(parents=True, exist_ok=True)
    values = {
        line.pop("name"): {key: float(getattr(value, "value", value)) for key, value in line.items()} for line in rows
    }
    plot_showers(found, options.directory / "showers.png", sums=(FULL,))
    for path in write(options.directory, {"showers.md": text, "showers.json": json.dumps(values, indent=1)}):
        print(path)


def main() -> None:
    """Find showers by condensation and by classical clusterings."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", dest="directory", type=Path, default=Path("bench-showers"), help="where to write")
    parser.add_argument("--events", type=int, default=300, help="how many test events")
    parser.add_argument("--library", type=int, default=400, help="single showers that they are made of")
    parser.add_argument("--valid", type=int, default=60, help="how many validation events")
    parser.add_argument("--valid-library", type=int, default=200, help="single showers that they are made of")
    parser.add_argument("--model", type=Path, help="checkpoint of a trained model, or showers, which ships")
    try:
        run(parser.parse_args())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
