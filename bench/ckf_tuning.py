"""What each setting of the Kalman filter brings, from those of ACTS's examples to configurations F and G.

    python -m bench.ckf_tuning EVENTS --events 1

prints a table in Markdown. Tune on other events than those that are shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.ckf import CONFIGS, Ckf, Pass
from bench.tables import percent
from cloudchamber.data import open_events
from cloudchamber.evaluate import evaluate
from cloudchamber.report import Column, markdown_table, seconds

_DEFAULT: dict[str, Any] = {"middle": (60.0, 120.0), "gap": 300.0, "collision": 250.0, "scattering": 5.0}
_DEFAULT |= {"radiation": 0.1, "impact_weight": 1.0, "chi2": (15.0, 25.0), "branches": 2, "seeds_per_point": 1}


def variants() -> dict[str, tuple[Pass, ...]]:
    """Name -> passes; each differs from the one before by what its name says."""
    stiff, soft, strips = CONFIGS["G"]
    (last,) = CONFIGS["F"]
    default = replace(last, **_DEFAULT)
    changes: dict[str, dict[str, Any]] = {
        "middle of a seed at r = 30-180 mm, not 60-120": {"middle": last.middle},
        "seeds ordered by impact parameter": {"impact_weight": last.impact_weight},
        "seeds shorter and nearer to the beam spot": {"gap": last.gap, "collision": last.collision},
        "triplets 2 σ of 0.05 X0 about a helix, not 5 σ of 0.1": {"scattering": 2.0, "radiation": 0.05},
        "hits up to χ² 25, not 15; outliers 40, not 25": {"chi2": last.chi2},
        "one branch per surface, not two": {"branches": 1},
        "two seeds per middle point: configuration F": {"seeds_per_point": 2},
    }
    found = {"one pass, settings of the examples": (default,)}
    for name, change in changes.items():
        default = replace(default, **change)
        found[name] = (default,)
    return found | {
        "two passes: pT > 0.5 GeV, then the rest": (stiff, last),
        "soft tracks with d0 up to 20 mm, not 4": (stiff, soft),
        "a third pass from short strips: configuration G": (stiff, soft, strips),
    }


COLUMNS = (
    "setting",
    Column("score", "TrackML", "{:.3f}".format),
    Column("primaries", "primaries", "{:.3f}".format),
    Column("stiff", "efficiency pT > 1, %", percent),
    Column("soft", "pT > 0.5", percent),
    Column("fakes", "fakes, all, %", percent),
    Column("cpu", "CPU time", seconds),
)


def row(name: str, passes: tuple[Pass, ...], path: Path, events: int | None) -> Mapping[str, Any]:
    """A row of the table."""
    source = open_events(path)[:events]
    results = [Ckf(passes)(event) for event in source]
    scores = evaluate([result.tracks for result in results], source)
    rates = {key: scores.rates[key]["double"] for key in ("pT > 1 GeV", "pT > 0.5 GeV", "all")}
    return {
        "setting": name,
        "score": scores.mean("trackml")[0],
        "primaries": scores.mean("trackml_primaries")[0],
        "stiff": rates["pT > 1 GeV"]["efficiency"],
        "soft": rates["pT > 0.5 GeV"]["efficiency"],
        "fakes": rates["all"]["fake_rate"],
        "cpu": float(np.mean([sum(result.cpu.values()) for result in results])),
    }


def main() -> None:
    """Tell what each setting of the Kalman filter brings."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", type=Path, help="directory of events with truth")
    parser.add_argument("--events", type=int, help="only the first so many")
    options = parser.parse_args()
    rows = []
    for name, passes in variants().items():
        rows.append(row(name, passes, options.path, options.events))
        print(rows[-1]["setting"], f"{rows[-1]['score']:.3f}", flush=True)
    print(markdown_table(rows, COLUMNS))


if __name__ == "__main__":
    main()
