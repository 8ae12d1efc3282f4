"""The verbs: each parses its arguments, calls one function and prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cloudchamber.errors import UserError

if TYPE_CHECKING:
    from cloudchamber.data.jetsource import Jets
    from cloudchamber.event import Event

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
simulators = typer.Typer(no_args_is_help=True, help="Make events with simulators.")
app.add_typer(simulators, name="simulate")
console, complaints = Console(), Console(stderr=True)


class Format(StrEnum):
    """How events are written."""

    parquet = "parquet"
    trackml = "trackml"


class Engine(StrEnum):
    """What runs the networks."""

    torch = "torch"
    onnx = "onnx"


Events = Annotated[Path, typer.Argument(help="Directory of TrackML tables or Parquet files, or one file.")]
Truth = Annotated[Path, typer.Argument(help="The events or jets that they are of, with truth.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Directory to write to.")]
Model = Annotated[
    Path | None, typer.Option("--model", help="Checkpoint, or one that ships: follow (default), graph, showers.")
]
Settings = Annotated[list[str] | None, typer.Argument(help="Settings such as train.rate=3e-4, over those of the file.")]


def _say(text: str, where: Console = console) -> None:
    """Print a line as it is: paths are not wrapped, and brackets in them are no markup."""
    where.print(text, soft_wrap=True, markup=False, emoji=False, highlight=False)


@simulators.command()
def collisions(
    output: Output,
    events: Annotated[int, typer.Option(help="How many.", min=0)] = 1,
    pileup: Annotated[float, typer.Option(help="Mean number of further collisions.", min=0)] = 200.0,
    process: Annotated[list[str] | None, typer.Option(help="Pythia setting of the hard collision; repeatable.")] = None,
    noise: Annotated[float, typer.Option(help="Fraction of hits that are noise.", min=0)] = 0.15,
    interactions: Annotated[float, typer.Option(help="Nuclear interaction lengths per radiation length.", min=0)] = 0.3,
    seed: Annotated[int, typer.Option(help="Events depend on it and on their number.", min=0)] = 1,
    first: Annotated[int, typer.Option(help="Number of the first event.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    format: Annotated[Format, typer.Option(help="How to write them.")] = Format.parquet,
) -> None:
    """Proton collisions in the TrackML detector: Pythia 8, ACTS fast simulation, digitization, noise (top pairs)."""
    from cloudchamber.data import DATASETS
    from cloudchamber.data.collisions import CollisionsConfig, simulate_many

    config = CollisionsConfig(pileup=pileup, noise=noise, interactions=interactions, seed=seed)
    if process:
        config = replace(config, process=tuple(process))
    for number, event in enumerate(simulate_many(config, events, workers, first), start=first):
        name = f"event{number:09d}"
        DATASETS[format].write(output, name, event)
        _say(f"{name}: {event.rows('point')} hits, {event.rows('object')} particles")


def _write_jets(batches: Iterable[Event], jets: int, labels: tuple[str, ...], output: Path) -> None:
    """Write jets, with a bar of progress where somebody sees it, and say which files."""
    from rich.progress import Progress

    from cloudchamber.data.jetsource import write_jets

    with Progress(console=complaints, transient=True, disable=not complaints.is_terminal) as bar:
        task = bar.add_task("jets", total=jets)

        def watched() -> Iterator[Event]:
            for event in batches:
                yield event
                bar.advance(task, len(event))

        for path, number in write_jets(output, watched(), labels):
            _say(f"{path}: {number} jets")


@simulators.command()
def jets(
    output: Output,
    process: Annotated[list[str] | None, typer.Option(help="Such as top,qcd: jets of each in turn.")] = None,
    jets: Annotated[int, typer.Option(help="How many, all processes together.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Jets depend on it, their process and their number.", min=0)] = 1,
    pt_min: Annotated[float, typer.Option(help="GeV.")] = 550.0,
    pt_max: Annotated[float, typer.Option(help="GeV.")] = 650.0,
    eta_max: Annotated[float, typer.Option(help="Of the jet's axis.")] = 2.0,
    radius: Annotated[float, typer.Option(help="Of anti-kT.")] = 0.8,
    smeared: Annotated[bool, typer.Option("--smeared", help="As a detector sees them, with tracks and truth.")] = False,
    workers: Annotated[int, typer.Option(help="Processes of this computer.", min=1)] = 1,
) -> None:
    """Jets of top, w, z, hbb, quark, gluon or qcd: Pythia 8, FastJet, the recipe of the top tagging reference set."""
    from cloudchamber.data.jets import JetsConfig, simulate

    names = tuple(name for given in process or ["top,qcd"] for name in given.split(","))
    config = JetsConfig(
        process=names, pt_min=pt_min, pt_max=pt_max, eta_max=eta_max, radius=radius, smeared=smeared, seed=seed
    )
    _write_jets(simulate(config, jets, workers), jets, names, output)


@simulators.command()
def showers(
    output: Output,
    events: Annotated[int, typer.Option(help="How many.", min=0)] = 100,
    energy_min: Annotated[float, typer.Option(help="GeV.")] = 1.0,
    energy_max: Annotated[float, typer.Option(help="GeV.")] = 50.0,
    least: Annotated[int, typer.Option(help="Showers of an event, at least.")] = 1,
    most: Annotated[int, typer.Option(help="Showers of an event, at most.")] = 8,
    photons: Annotated[float, typer.Option(help="Fraction of photons; the rest are electrons.")] = 0.5,
    close: Annotated[float, typer.Option(help="Fraction of showers close to another one.")] = 0.5,
    within: Annotated[float, typer.Option(help="Molière radii within which these are.")] = 5.0,
    library: Annotated[int, typer.Option(help="Single showers that are simulated, and overlaid.")] = 500,
    seed: Annotated[int, typer.Option(help="Showers and events depend on it and on their number.", min=0)] = 1,
    first: Annotated[int, typer.Option(help="Number of the first event.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
) -> None:
    """Overlapping showers of electrons and photons in a calorimeter: Geant4, noise, a threshold."""
    from cloudchamber.data import DATASETS
    from cloudchamber.data.showers import ShowersConfig, simulate

    config = ShowersConfig(
        energy_min=energy_min, energy_max=energy_max, least=least, most=most, photons=photons, close=close,
        within=within, library=library, seed=seed,
    )  # fmt: skip
    for number, event in enumerate(simulate(config, events, output, workers, first), start=first):
        name = f"event{number:09d}"
        DATASETS["parquet"].write(output, name, event)
        _say(f"{name}: {event.rows('point')} cells, {event.rows('object')} showers")


@app.command()
def convert(
    events: Events,
    output: Output,
    format: Annotated[Format, typer.Option(help="How to write them.")] = Format.parquet,
) -> None:
    """Write events in another format; jets of HDF5 or ROOT files always as Parquet."""
    from cloudchamber.data import DATASETS, convert, open_events
    from cloudchamber.data.jetsource import is_foreign, open_jets

    if is_foreign(events) and not DATASETS["calochallenge"].find(events):
        if format != Format.parquet:
            raise UserError(f"{events}: jets are written as Parquet, not as {format.value}")
        found = open_jets(events)
        _write_jets(found.batches(), len(found), found.labels, output)
        return
    source = open_events(events)
    convert(source, output, format)
    _say(f"{len(source)} events -> {output}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file, such as those in configs/.")],
    output: Output,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in the directory.")] = False,
    start: Annotated[
        str, typer.Option("--from", metavar="CHECKPOINT", help="Begin with its weights, but for the head.")
    ] = "",
) -> None:
    """Train a network."""
    from cloudchamber.config import load
    from cloudchamber.train import train

    run = load(config, settings or ())
    if start:
        run = replace(run, train=replace(run.train, start=start))
    _say(f"best weights: {train(run, output, resume=resume)}")


@app.command()
def reconstruct(
    events: Events,
    output: Output,
    model: Model = None,
    workers: Annotated[int, typer.Option(help="Processes that share the events and the cores.", min=1)] = 1,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Scheduler of a Dask cluster, which shares them instead.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="What runs the networks.")] = Engine.torch,
    threshold: Annotated[
        float | None,
        typer.Option(help="Least probability: a higher one for fewer fakes.", min=0, max=1),
    ] = None,
    passes: Annotated[
        int | None, typer.Option(help="Only the first so many: faster, no soft or displaced tracks.", min=1)
    ] = None,
) -> None:
    """Find the tracks of events, or other objects, by the model."""
    from cloudchamber.checkpoint import model_path
    from cloudchamber.data import open_events
    from cloudchamber.predictions import holds_objects
    from cloudchamber.reconstruct import reconstruct

    if dask:  # its workers run in other directories
        events = events.resolve()
        model = model_path(model).resolve() if model and model_path(model) == model else model
    source = open_events(events)
    outcome = reconstruct(
        source, output, model, lambda name: _say(f"{name}: done"), workers, dask, engine.value, threshold, passes
    )
    what = "objects" if holds_objects(output) else "tracks"
    _say(f"{outcome.rows} {what} in {outcome.events} of {len(source)} events -> {output}")
    outcome.complain()


@app.command()
def predict(
    jets: Annotated[Path, typer.Argument(help="File or directory of jets: Parquet, HDF5 or ROOT.")],
    output: Output,
    model: Annotated[
        Path | None, typer.Option("--model", help="Checkpoint of a tagger, if not the one that ships.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that share the jets and the cores.", min=1)] = 1,
    engine: Annotated[Engine, typer.Option(help="What runs the network.")] = Engine.torch,
) -> None:
    """Score jets with a tagger."""
    from cloudchamber.data.jetsource import open_jets
    from cloudchamber.predict import SCORES, predict

    failed: list[str] = []
    source = open_jets(jets, failed)
    outcome = predict(source, output, model, lambda name, number: _say(f"{name}: {number} jets"), workers, engine.value)
    outcome.failed[:0] = failed
    _say(f"{outcome.rows} of {len(source)} jets -> {output / SCORES}")
    outcome.complain()


@app.command()
def export(
    output: Output,
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint, or one that ships: follow (default), graph, showers, top.")
    ] = None,
) -> None:
    """Write the networks of a checkpoint as ONNX, with a manifest of their inputs and outputs."""
    from cloudchamber.checkpoint import model_path
    from cloudchamber.export import export

    _say(f"-> {export(model_path(model), output)}")


@app.command()
def evaluate(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            help="Directory that 'reconstruct' or 'predict' wrote; of jets also those of several trainings."
        ),
    ],
    events: Truth,
) -> None:
    """Score predictions against the truth; writes scores.json beside them."""
    from cloudchamber.data import open_events
    from cloudchamber.evaluate import SCORES, evaluate_directory
    from cloudchamber.report import score_tables, tag_table
    from cloudchamber.tagged import evaluate_scores, holds_scores

    if holds_scores(predictions[0]):
        jets = _jets(events)
        console.print(tag_table([evaluate_scores(directory, jets) for directory in predictions]))
    else:
        for table in score_tables(evaluate_directory(_only(predictions), open_events(events))):
            console.print(table)
    for directory in predictions:
        _say(f"-> {directory / SCORES}")


@app.command()
def report(
    predictions: Annotated[
        list[Path],
        typer.Argument(help="Directory that 'reconstruct' or 'predict' wrote; of jets also those of several taggers."),
    ],
    events: Truth,
    output: Output,
    model: Annotated[Path | None, typer.Option("--model", help="Show the stages of this checkpoint as well.")] = None,
) -> None:
    """Plots and tables; of tracks the efficiency, a view and an interactive display of the first event."""
    from cloudchamber.data import open_events
    from cloudchamber.report import write_report, write_tag_report
    from cloudchamber.tagged import holds_scores

    if holds_scores(predictions[0]):
        paths = write_tag_report(predictions, _jets(events), output)
    else:
        paths = write_report(_only(predictions), open_events(events), output, model)
    for path in paths:
        _say(f"-> {path}")


def _only(directories: list[Path]) -> Path:
    if len(directories) > 1:
        raise UserError(f"{directories[1]}: expected one directory of tracks, found {len(directories)}")
    return directories[0]


def _jets(path: Path) -> Jets:
    """The jets of a path; files that cannot be opened have been named by 'predict'."""
    from cloudchamber.data.jetsource import open_jets

    return open_jets(path, [])


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit status 2."""
    try:
        app()
    except UserError as error:
        for line in str(error).splitlines():
            _say(f"cloudchamber: {line}", complaints)
        sys.exit(2)
    except KeyboardInterrupt:
        _say("cloudchamber: interrupted", complaints)
        sys.exit(130)


if __name__ == "__main__":
    main()
