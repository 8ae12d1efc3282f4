"""How many times the background of others a tagger rejects, on the same jets: ratios, with errors of a bootstrap.

    python -m bench.tagger_ratios jets runs many -o ratios

compares what ``bench.taggers`` trained in ``runs`` on ``--size`` jets of ``jets/train`` with boosted trees of these
jets, and with one another, on the test jets of ``many``: enough to count the background that is left. Scores are kept
in ``ratios`` and not computed again. ``--page docs/taggers.md`` brings that page up to date.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.baselines import FORESTS, TREES, TREES_FULL, Features, tree_scores
from bench.readme import fill
from bench.tagger_tables import NAMES
from bench.taggers import DONE, SIGNAL, score_one
from cloudchamber.data.jetsource import open_jets
from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics import Measured
from cloudchamber.report import Column, markdown_table
from cloudchamber.report.tables import plain
from cloudchamber.threads import use_threads

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
KEPT = (0.3, 0.5, 0.7, 0.8)  # of the signal
SEEDS = (1, 2, 3)  # of the trees
DRAWS = 300


class Scores(NamedTuple):
    """Of one network or trees: how many trainings, and the mean of their numbers in each draw of the jets."""

    seeds: int
    drawn: Float

    @classmethod
    def of(cls, seeds: Sequence[Float], signal: Mask) -> Scores:
        """From scores ``(jets,)`` of each. ``drawn`` ``(1 + DRAWS, 1 + len(KEPT))``: AUC and background kept; the first
        row is that of all jets as they are.
        """
        return cls(len(seeds), np.mean([_drawn(score, signal) for score in seeds], axis=0))


def _drawn(score: Float, signal: Mask) -> Float:
    random, rows = np.random.default_rng(1), [np.flatnonzero(some) for some in (signal, ~signal)]
    order = [some[np.argsort(score[some])] for some in rows]
    above, below = (score[some] for some in order)
    low, high = (np.searchsorted(below, above, side) for side in ("left", "right"))
    found = []
    for draw in range(1 + DRAWS):
        weight = random.poisson(1.0, len(signal)) if draw else np.ones(len(signal), int)  # the same jets for all
        w, v = (weight[some] for some in order)
        under, passed = np.concatenate([[0], v.cumsum()]), w[::-1].cumsum()
        area = (w * (under[low] + under[high])).sum() / (2 * w.sum() * v.sum())
        ends = [np.searchsorted(passed, round(kept * w.sum(), 9)) for kept in KEPT]
        found.append([area, *(1 - under[low[::-1][ends]] / v.sum())])
    return np.array(found)


def _interval(draws: Float) -> Float:
    """68 % of the draws; a number of the draws each, as they may be infinite."""
    return np.quantile(draws, [0.1587, 0.8413], axis=0, method="inverted_cdf")


def compared(one: Scores, other: Scores) -> Float:
    """The difference in AUC and the ratios of rejections, one over the other: value, low and high ``(3, numbers)``."""
    left, right = other.drawn[:, 1:], one.drawn[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(left == right, 1.0, left / right)  # also of nothing
    found = np.concatenate([one.drawn[:, :1] - other.drawn[:, :1], ratio], axis=1)
    return np.concatenate([found[:1], _interval(found[1:])])


def trained(runs: Path, test: Event, kept: Path, jets: int, names: Sequence[str] | None) -> Iterator[tuple[str, Float]]:
    """Scores of every finished training on so many jets."""
    for path in sorted(runs.glob(f"*-{jets}-*/{DONE}")):
        name = path.parent.name.rsplit("-", 2)[0]
        if names is None or name in names:
            yield name, score_one(path.parent, test, kept / f"{path.parent.name}.npy").astype(float)


def table(found: dict[str, Scores], signal: Mask) -> str:
    """One row for each network and what it is compared with."""
    names = sorted(found, key=list(NAMES).index)
    pairs = [(name, TREES) for name in names if name != TREES]
    pairs += [(name, TREES_FULL) for name in names if name.endswith("-full") and name != TREES_FULL]
    pairs += [(one, other) for one, other in (("lorentz-beam", "part"), ("lorentz-full", "part-full"))]
    columns = [Column("one", "this"), Column("other", "over that"), Column("auc", "AUC, difference")]
    columns += [Column(f"r{kept}", f"rejection at {100 * kept:.0f} %, ratio") for kept in KEPT]
    rows = []
    for one, other in pairs:
        if one in found and other in found:
            numbers = (Measured(*map(float, three)) for three in compared(found[one], found[other]).T)
            keys = ("auc", *(f"r{kept}" for kept in KEPT))
            rows.append({"one": NAMES[one], "other": NAMES[other], **dict(zip(keys, numbers, strict=True))})
    left = [{"one": NAMES[name], **_left(found[name])} for name in names]
    alone = [Column("one", "network"), Column("seeds"), *(Column(f"r{kept}", f"{100 * kept:.0f} %") for kept in KEPT)]
    return (
        f"Rejection of {plain(int((~signal).sum()))} jets of background at efficiencies of {plain(int(signal.sum()))} "
        f"of signal:\n\n{markdown_table(left, alone)}\n\n{markdown_table(rows, columns)}\n"
    )


def _left(one: Scores) -> dict[str, Any]:
    found: dict[str, Any] = {"seeds": str(one.seeds)}
    for number, kept in enumerate(KEPT, start=1):
        low, high = _interval(one.drawn[1:, number])
        with np.errstate(divide="ignore"):
            found[f"r{kept}"] = Measured(1 / one.drawn[0, number], 1 / high, 1 / low)
    return found


def main() -> None:
    """Score what is trained and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("jets", type=Path, help="directory that holds train")
    parser.add_argument("runs", type=Path, help="directory of bench.taggers")
    parser.add_argument("many", type=Path, help="test jets")
    parser.add_argument("-o", dest="directory", type=Path, required=True, help="where scores and the table go")
    parser.add_argument("--size", type=int, default=100_000, help="training jets")
    parser.add_argument("--networks", nargs="+", help="some of those that are trained")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--page", type=Path, help="Markdown page to bring up to date")
    options = parser.parse_args()
    use_threads(options.threads)
    try:
        many, train = open_jets(options.many), open_jets(options.jets / "train")
        test, known = many.range(0, len(many)), Features.of(train.range(0, min(options.size, len(train))))
        signal = (test.scene["label"] == SIGNAL).numpy()
        options.directory.mkdir(parents=True, exist_ok=True)
        seeds: dict[str, list[Float]] = {}
        for name, score in trained(options.runs, test, options.directory, options.size, options.networks):
            seeds.setdefault(name, []).append(score)
        tested = Features.of(test)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    for name, columns in FORESTS.items():
        if known.columns.keys() >= set(columns):
            seeds[name] = [tree_scores(known, tested, seed, columns) for seed in SEEDS]
    text = table({name: Scores.of(scores, signal) for name, scores in seeds.items()}, signal)
    with atomic(options.directory / "ratios.md") as path:
        path.write_text(text, encoding="utf-8")
    print(text, end="")
    if options.page:
        fill(options.page, text, "ratios")


if __name__ == "__main__":
    main()
