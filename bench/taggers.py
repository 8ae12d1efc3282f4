"""All taggers on the same jets: what they reject for how many parameters, and how many jets they need to learn.

    python -m bench.taggers jets -o runs

trains every network of ``configs/jets-*.toml`` that tells the classes of ``jets/train`` apart, for each number of jets
and seed as long as ``BUDGETS`` says, scores ``jets/test``, and writes ``taggers.md``, ``taggers.json`` and two charts
to ``runs``. What is finished is not done again, and what was interrupted goes on: it may be stopped at any time.
``--score`` trains nothing more; ``--page docs/taggers.md`` brings that page up to date. It tells how to make the jets.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.baselines import CUTS, FORESTS, Features, cut_scores, tree_scores
from bench.readme import fill, shrink
from bench.tagger_charts import CHARTS, draw
from bench.tagger_tables import Result, markdown, summaries
from cloudchamber import checkpoint
from cloudchamber.config import Run, load
from cloudchamber.data.jetsource import Jets, open_jets
from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.threads import use_threads
from cloudchamber.train import BEST, LAST, train

CONFIGS = Path(__file__).parents[1] / "configs"
DONE, SCORES = "training.json", "scores.npy"
SIGNAL = 1  # the label of what is looked for


@dataclass(frozen=True)
class Budget:
    """How long a training takes: passes over its jets, points in a step, and jets to validate on after each pass."""

    epochs: int
    points: int
    valid: int


#: Number of jets to train on -> budget, the same for all networks.
BUDGETS = {1_000: Budget(48, 1_600, 500), 10_000: Budget(15, 3_200, 1_000), 100_000: Budget(9, 6_400, 2_000)}


@dataclass(frozen=True)
class Job:
    """One training of a network of ``configs``, on the first ``jets`` jets."""

    seed: int
    jets: int
    network: str

    @property
    def name(self) -> str:
        """Of its directory."""
        return f"{self.network}-{self.jets}-{self.seed}"

    def run(self, jets: Path) -> Run:
        """What the command line would train."""
        budget = BUDGETS[self.jets]
        settings = {
            "data.train": json.dumps(str(jets / "train")),
            "data.valid": json.dumps(str(jets / "valid")),
            "data.events": self.jets,
            "data.valid_events": budget.valid,
            "train.epochs": budget.epochs,
            "train.points": budget.points,
            "train.seed": self.seed,
        }
        path = CONFIGS / f"jets-{self.network}.toml"
        return load(path, [f"{name}={value}" for name, value in settings.items()])


def networks(classes: Sequence[str]) -> list[str]:
    """The names of the configurations that tell these classes apart."""
    paths = sorted(CONFIGS.glob("jets-*.toml"))
    return [path.stem.removeprefix("jets-") for path in paths if load(path).task.classes == tuple(classes)]


def train_one(job: Job, jets: Path, directory: Path) -> None:
    """Train, or go on with it, and write down what it took.

    The CPU time is that of all steps at the cost of those done now.
    """
    resumed = (directory / LAST).exists()
    before = checkpoint.read(directory / LAST)[2]["step"] if resumed else 0
    start = time.process_time()
    best = train(job.run(jets), directory, resume=resumed)
    spent, steps = time.process_time() - start, checkpoint.read(directory / LAST)[2]["step"]
    cpu = spent * steps / (steps - before) if steps > before else None
    extra, task = checkpoint.read(best)[2], checkpoint.load(best)[0]
    parameters = sum(parameter.numel() for parameter in task.parameters())
    found = {"parameters": parameters, "passes": BUDGETS[job.jets].epochs, "cpu": cpu}
    found |= {"threads": torch.get_num_threads(), "valid_loss": extra["loss"]}
    _write(directory / DONE, {**asdict(job), **found})
    (directory / LAST).unlink()  # three times as large as the weights


def score_one(directory: Path, test: Event, path: Path) -> NDArray[np.float32]:
    """The probability of signal of each test jet, kept in a file; those that were computed before are not again."""
    known: NDArray[np.float32] = np.load(path)[: len(test)] if path.exists() else np.zeros(0, np.float32)
    if len(known) == len(test):
        return known
    task, run = checkpoint.load(directory / BEST)
    name, parts = f"p_{run.task.classes[SIGNAL]}", [known]
    with torch.inference_mode():
        for first in range(len(known), len(test), 200):
            some = test.take(torch.arange(first, min(first + 200, len(test))))
            parts.append(task.decode(task.prepare(some)).scene[name].numpy())
    found = np.concatenate(parts)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, found)
    return found


def trained(directory: Path, test: Event) -> Iterator[Result]:
    """Every finished training below a directory."""
    signal = (test.scene["label"] == SIGNAL).numpy()
    for path in sorted(directory.glob(f"*/{DONE}")):
        known: dict[str, Any] = json.loads(path.read_text())
        yield Result.of(score_one(path.parent, test, path.parent / SCORES), signal, **known)


def baselines(jets: Jets, test: Event, sizes: Sequence[int], seeds: Sequence[int]) -> Iterator[Result]:
    """The best cuts and the boosted trees, trained on as many jets as there are."""
    tested, most = Features.of(test), Features.of(jets.range(0, min(len(jets), max(sizes))))
    for size in (size for size in sizes if size <= len(most)):
        known = most.first(size)
        start = time.process_time()
        scores = cut_scores(known, tested)
        spent = {"seed": 0, "jets": size, "cpu": time.process_time() - start}
        yield Result.of_cuts(scores, tested.signal, network=CUTS, **spent)
        for seed, (name, columns) in product(seeds, FORESTS.items()):
            if known.columns.keys() >= set(columns):
                start = time.process_time()
                score = tree_scores(known, tested, seed, columns)
                spent = {"seed": seed, "jets": size, "cpu": time.process_time() - start}
                yield Result.of(score, tested.signal, network=name, **spent)


def compare(jets: Path, directory: Path, sizes: Sequence[int], seeds: Sequence[int], number: int) -> str:
    """Score what is trained and the baselines on the first test jets, write tables and charts; the table."""
    source = open_jets(jets / "test")
    test = source.range(0, min(number or len(source), len(source)))
    results = [*baselines(open_jets(jets / "train"), test, sizes, seeds), *trained(directory, test)]
    found, signal = summaries(results), int((test.scene["label"] == SIGNAL).sum())
    about = {"test": {"signal": signal, "background": len(test) - signal}, "threads": torch.get_num_threads()}
    about |= {"budgets": {str(size): asdict(budget) for size, budget in BUDGETS.items()}}
    _write(directory / "taggers.json", {**about, "results": [result.to_dict() for result in results]})
    text = markdown(found, signal, len(test) - signal)
    with atomic(directory / "taggers.md") as path:
        path.write_text(text, encoding="utf-8")
    draw(found, directory)
    return text


def publish(directory: Path, page: Path) -> None:
    """Put the table between the comments ``measured`` of a page, and the charts into ``images`` beside it."""
    fill(page, (directory / "taggers.md").read_text(encoding="utf-8"))
    for name in CHARTS:
        if (directory / name).exists():
            shrink(directory / name, page.parent / "images" / name, 900)


def _write(path: Path, values: dict[str, Any]) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1))


def main() -> None:
    """Train, score and compare all taggers."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("jets", type=Path, help="directory that holds train, valid and test")
    parser.add_argument("-o", dest="directory", type=Path, required=True, help="where the trainings and tables go")
    parser.add_argument("--sizes", type=int, nargs="+", choices=BUDGETS, default=list(BUDGETS), help="training jets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--test", type=int, default=0, help="test jets at most")
    parser.add_argument("--networks", nargs="+", help="some of the configurations, without 'jets-'")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--page", type=Path, help="Markdown page to bring up to date")
    parser.add_argument("--score", action="store_true", help="train nothing more")
    parser.add_argument("--train", action="store_true", help="train only")
    options = parser.parse_args()
    use_threads(options.threads)
    try:
        if not options.score:
            names = options.networks or networks(open_jets(options.jets / "train").labels)
            for job in (Job(*one) for one in product(options.seeds, options.sizes, names)):
                if not (options.directory / job.name / DONE).exists():
                    print(f"{time.strftime('%H:%M:%S')} {job.name}", flush=True)
                    train_one(job, options.jets, options.directory / job.name)
        if not options.train:
            print(compare(options.jets, options.directory, options.sizes, options.seeds, options.test), end="")
            if options.page:
                publish(options.directory, options.page)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
