"""From files of jets to the scores of a tagger on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from cloudchamber import checkpoint
from cloudchamber.checkpoint import TAGGERS, model_path
from cloudchamber.data.jetsource import RANGE_JETS, Jets
from cloudchamber.data.loader import Packed
from cloudchamber.data.ranges import readable
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.export import cached, use_onnx
from cloudchamber.outcome import Outcome, growing_table, results
from cloudchamber.tasks.tag import Tag

SCORES = "scores.parquet"
_TRUTH = ("origin", "vertex")
_GROUP = 20  # tables of ``RANGE_JETS`` jets in a row group
_LINES = 10  # about one file
_PLACE = {"id": pa.int64(), "file": pa.string(), "row": pa.int64(), "label": pa.string()}


class Tagger:
    """Scores jets with a trained tagger; truth in them is not looked at.

    ``model``: a checkpoint, or None for the one that ships. ``engine``: what runs the network, ``torch`` or ``onnx``.
    Raises ``UserError`` for a file that is none of a tagger.
    """

    def __init__(self, model: str | Path | None = None, engine: str = "torch") -> None:
        path = _path(model)
        task, self.run = checkpoint.load(path)
        if not isinstance(task, Tag):
            raise UserError(f"{path}: task.kind: expected 'tag', which scores jets, found {self.run.task.kind!r}")
        self.task = task
        self.onnx = engine == "onnx"
        if self.onnx:
            use_onnx(task, self.run, path)
        self.classes, self.regress = task.config.classes, task.config.regress

    @property
    def names(self) -> list[str]:
        """The columns of the scores: ``p_CLASS``, a probability, for each class, then the numbers that are learned."""
        return [*(f"p_{name}" for name in self.classes), *self.regress]

    def __call__(self, jets: Event) -> dict[str, Tensor]:
        """The columns ``names`` of a batch of jets, ``(jets,)`` float32 each."""
        point = {name: column for name, column in jets.point.items() if name not in _TRUTH}
        count = {level: jets.count[level] for level in ("point", "scene")}
        packed = Packed(Event(point=point, count=count), self.task.prepare)
        with torch.inference_mode():
            parts = [self._scores(event) for _, event in packed.batches(range(len(jets)), self.run.train.points)]
        return {name: torch.cat([torch.zeros(0), *(part[name] for part in parts)]) for name in self.names}

    def _scores(self, event: Event) -> dict[str, Tensor]:
        if self.onnx:  # one table, of the scores alone
            return self.task.named(self.task.judge(*self.task.arrays(event).values()))
        return dict(self.task.decode(event).scene)


def _path(model: str | Path | None) -> Path:
    return model_path(TAGGERS[0] if model is None else model)


def predict(
    source: Jets,
    directory: str | Path,
    model: str | Path | None = None,
    progress: Callable[[str, int], None] = lambda name, jets: None,
    workers: int = 1,
    engine: str = "torch",
) -> Outcome:
    """Write the scores of all jets to ``directory/scores.parquet``, atomically, and tell what failed.

    A row per jet, in order: its ``id``, the name of its ``file`` and its ``row`` there (from 1), its ``label`` (a name;
    null where there is none), and the columns of ``Tagger.names``. Jets are read some at a time, and what is malformed
    is left out and named in the outcome, whose events are files and whose rows are jets. ``progress`` is called with
    the name of each file when it is done, and the number of its jets that were scored.

    ``workers`` processes share the jets (see ``pool.in_processes``). What is written does not depend on them.
    ``engine``: see ``Tagger``.
    """
    if engine == "onnx":  # here, once for all processes
        cached(_path(model))
    schema = _schema(Tagger(model))
    items = [part for number in range(len(source.files)) for part in _parts(source, number)]
    names = [source.files[part.file].path.name for part in items]
    outcome = Outcome()
    found = results(partial(_start, model, engine, source), items, names, outcome.failed, workers)
    with closing(found), growing_table(Path(directory) / SCORES, schema, _GROUP) as write:
        for name, parts in groupby(found, key=itemgetter(0)):
            faults, before = list[str](), outcome.rows
            for _, (table, told) in parts:
                write(table)
                outcome.rows += len(table)
                faults += told
            lines = list(dict.fromkeys(faults))
            more = [f"{name}: {len(lines) - _LINES} more faults"] if len(lines) > _LINES else []
            outcome.failed += lines[:_LINES] + more
            outcome.events += 1
            progress(name, outcome.rows - before)
    return outcome


class _Part(NamedTuple):
    """Jets ``first`` to ``last - 1`` of the whole, which lie in the file of that number."""

    file: int
    first: int
    last: int


def _parts(source: Jets, number: int) -> Iterator[_Part]:
    begin, end = source.starts[number : number + 2].tolist()
    return (_Part(number, first, min(first + RANGE_JETS, end)) for first in range(begin, end, RANGE_JETS))


def _schema(tagger: Tagger) -> Any:
    return pa.schema(_PLACE | dict.fromkeys(tagger.names, pa.float32()))


def _start(model: str | Path | None, engine: str, source: Jets) -> Callable[[_Part], tuple[Any, list[str]] | str]:
    """Makes, once in a process, what is called for each part of the jets there."""
    return partial(_work, Tagger(model, engine), source)


def _work(tagger: Tagger, source: Jets, part: _Part) -> tuple[Any, list[str]]:
    """The rows of ``scores.parquet`` of some jets, and a line for each fault."""
    path, begin = source.files[part.file].path, int(source.starts[part.file])
    faults, tables = list[str](), [_schema(tagger).empty_table()]
    for first, event in readable(source, part.first, part.last, faults):
        try:
            scores = tagger(event)
        except UserError as error:
            faults.append(f"{path}: {error}")
            continue
        row = torch.arange(first - begin + 1, first - begin + 1 + len(event))
        good = torch.stack(list(scores.values())).isfinite().all(0)
        faults += [f"{path}: row {number}: the scores of this jet are not finite" for number in row[~good].tolist()]
        label = event.scene.get("label", torch.full_like(row, -1))
        columns = {"id": event.scene["id"], "row": row, **scores}
        table: dict[str, Any] = {name: column[good].numpy() for name, column in columns.items()}
        table["file"] = [path.name] * int(good.sum())
        table["label"] = label_names(label[good], source.labels or tagger.classes)
        tables.append(pa.table({name: table[name] for name in tables[0].column_names}, tables[0].schema))
    return pa.concat_tables(tables), faults


def label_names(label: Tensor, names: Sequence[str]) -> list[str | None]:
    """The names of labels ``(jets,)``: None for -1, and the number itself where it has no name."""
    known = dict(enumerate(names)) | {-1: None}
    return [known.get(number, str(number)) for number in label.tolist()]
