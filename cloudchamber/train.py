"""The one training loop: any task, any device, killed and resumed without a trace."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from cloudchamber import checkpoint
from cloudchamber.config import Run
from cloudchamber.data import EventSource, open_events
from cloudchamber.data.jetsource import open_jets
from cloudchamber.data.loader import Packed, Prepared, epoch_order
from cloudchamber.data.store import atomic, one_line
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics import Fraction
from cloudchamber.tasks import TASKS, ProposalConfig

LAST, BEST, LOG = "last.safetensors", "best.safetensors", "log.csv"


def train(run: Run, directory: str | Path, *, resume: bool = False, stop_after: int | None = None) -> Path:
    """Train the task of a run on its events; returns the path of the best checkpoint (smallest validation loss).

    ``directory`` receives ``best.safetensors`` (weights), ``last.safetensors`` (weights and the state to resume from),
    ``log.csv`` and TensorBoard files. A run resumed from ``last.safetensors`` ends with the same weights as one that
    was never stopped. ``stop_after`` ends the session after so many steps, as a time limit would.

    Raises ``UserError`` for unusable data or settings, and when loss or gradient is not finite (with step and parts).
    """
    directory = Path(directory)
    if (directory / LAST).exists() and not resume:
        raise UserError(f"{directory}: holds a training already; go on with it (--resume) or choose another directory")
    settings = run.train
    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            strategy=settings.strategy,
            devices=settings.devices,
            precision=cast(Any, settings.precision),
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"train: accelerator, devices, strategy or precision: {one_line(error)}") from None
    fabric.launch()
    loop = _Loop(run, directory, fabric, resume=resume)
    try:
        loop.run_epochs(stop_after)
    finally:
        loop.close()
    return directory / BEST


class _Loop:
    def __init__(self, run: Run, directory: Path, fabric: Fabric, *, resume: bool) -> None:
        self.directory, self.fabric, self.settings = directory, fabric, run.train
        source = _events(run, run.data.train, run.data.events, "data.train")
        valid = _events(run, run.data.valid, run.data.valid_events, "data.valid")
        state: dict[str, Tensor] = {}
        self.step, self.epoch, self.done, self.least = 0, 0, 0, math.inf
        if resume:
            state, saved, position = checkpoint.read(directory / LAST)
            self.run = _continued(saved, run, directory / LAST)
            task = checkpoint.build(self.run)
            checkpoint.fill(task, checkpoint.part(state, "weights"), directory / LAST)
            self.step, self.epoch, self.done = position["step"], position["epoch"], position["done"]
            self.least = position["least"] if position["least"] is not None else math.inf
        else:
            self.run, task = checkpoint.start(run)
            some = _some(source, slice(self.settings.fit))
            task.fit([some] if isinstance(some, Event) else some)
            if self.settings.start:
                checkpoint.transfer(task, self.settings.start)
        ranked = _some(source, slice(fabric.global_rank, None, fabric.world_size))
        self.task = task
        self.events, self.valid = self._loaded(ranked), self._loaded(valid)
        trained = [p for p in task.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.settings.rate, weight_decay=self.settings.decay)
        if state:
            _restore(optimizer, checkpoint.part(state, "optimizer"))
            torch.set_rng_state(state["rng/torch"])
        self.module, self.optimizer = fabric.setup(task, optimizer)
        self.module.mark_forward_method("loss")
        directory.mkdir(parents=True, exist_ok=True)
        self.writer = None
        if fabric.is_global_zero:
            self.writer = SummaryWriter(str(directory), purge_step=self.step + 1)
            _trim(directory / LOG, self.step)

    def close(self) -> None:
        """Flush the logs."""
        if self.writer is not None:
            self.writer.close()

    def _loaded(self, source: EventSource | Event) -> Packed | Prepared:
        if isinstance(source, Event):
            return Packed(source, self._prepare)
        return Prepared(source, self._prepare, cache=self.settings.cache)

    def _prepare(self, event: Event) -> Event:
        with torch.no_grad():
            return self.task.prepare(event)

    def run_epochs(self, stop_after: int | None) -> None:
        """The epochs that are left, with a progress bar."""
        columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        total = self.settings.epochs * len(self.events)
        left = math.inf if stop_after is None else stop_after
        with Progress(*columns, TextColumn("loss {task.fields[loss]:.4f}"), disable=not self._shown) as bar:
            line = bar.add_task("train", total=total, epoch=self.epoch, loss=math.nan)
            while self.epoch < self.settings.epochs:
                order = epoch_order(len(self.events), self.settings.seed, self.epoch)[self.done :]
                self.module.train()
                for events, group in self.events.batches(order, self.settings.points):
                    if left <= 0:
                        self._save()
                        return
                    parts = self._step(group)
                    self.done += events
                    left -= 1
                    place = self.epoch * len(self.events) + self.done
                    bar.update(line, completed=place, epoch=self.epoch, loss=sum(parts.values()))
                    if self.step % max(self.settings.every, 1) == 0:
                        self._save()
                self._validate()
                self.epoch, self.done = self.epoch + 1, 0
                self._save()

    @property
    def _shown(self) -> bool:
        return self.fabric.is_global_zero

    def _step(self, group: Event) -> dict[str, float]:
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self._rate()
        parts = self.module.loss(group.to(self.fabric.device))
        loss = torch.stack(list(parts.values())).sum()
        values = {name: float(part.detach()) for name, part in parts.items()}
        self._finite("loss", loss, values)
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=self.settings.clip, error_if_nonfinite=False
        )
        self._finite("gradient", norm, values)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._log({f"train/{name}": value for name, value in values.items()})
        return values

    def _finite(self, what: str, number: Tensor | None, parts: Mapping[str, float]) -> None:
        if number is not None and not torch.isfinite(number):
            raise UserError(f"{what} is not finite at step {self.step} of epoch {self.epoch}: {dict(parts)}")

    def _rate(self) -> float:
        """Linear warm-up, then half a cosine, over the fraction of the training that is done."""
        done = (self.epoch + self.done / len(self.events)) / self.settings.epochs
        warm = min((done + 1 / len(self.events) / self.settings.epochs) / max(self.settings.warmup, 1e-9), 1.0)
        return self.settings.rate * warm * 0.5 * (1 + math.cos(math.pi * done))

    @torch.no_grad()
    def _validate(self) -> None:
        self.module.eval()
        with torch.random.fork_rng():  # validation leaves the random numbers of the training alone
            torch.manual_seed(self.settings.seed)
            total = 0.0
            scores: dict[str, Fraction] = {}
            for events, group in self.valid.batches(range(len(self.valid)), self.settings.points):
                event = group.to(self.fabric.device)
                parts = {name: float(part) for name, part in self.module.loss(event).items()}
                self._finite("validation loss", torch.tensor(sum(parts.values())), parts)
                total += events * sum(parts.values())
                for name, score in self.task.score(event).items():
                    scores[name] = scores[name] + score if name in scores else score
        mean = total / max(len(self.valid), 1)
        loss = float(cast(Tensor, self.fabric.all_reduce(torch.tensor(mean))))
        self._log({"valid/loss": loss, **{f"valid/{name}": float(score.value) for name, score in scores.items()}})
        if loss < self.least:
            self.least = loss
            if self.fabric.is_global_zero:
                checkpoint.save(self.directory / BEST, self._weights(), self.run, step=self.step, loss=loss)

    def _weights(self) -> dict[str, Tensor]:
        return {f"weights/{name}": tensor for name, tensor in self.task.state_dict().items()}

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        state = {f"optimizer/{name}": tensor for name, tensor in _flat(self.optimizer).items()}
        rng = {"rng/torch": torch.get_rng_state()}
        least = self.least if math.isfinite(self.least) else None
        position = {"step": self.step, "epoch": self.epoch, "done": self.done, "least": least}
        checkpoint.save(self.directory / LAST, {**self._weights(), **state, **rng}, self.run, **position)

    def _log(self, values: Mapping[str, float]) -> None:
        if self.writer is None:
            return
        with (self.directory / LOG).open("a", newline="") as file:
            rows = csv.writer(file)
            for name, value in values.items():
                self.writer.add_scalar(name, value, self.step)
                rows.writerow([f"{time.time():.1f}", self.epoch, self.step, name, f"{value:.6g}"])


def _events(run: Run, path: str, limit: int, key: str) -> EventSource | Event:
    """The events of a path, at most ``limit`` of them; one batch of all in memory where the task says so."""
    if not path:
        raise UserError(f"{key}: names no directory of events")
    if TASKS[run.task.kind][1].packed:
        jets = open_jets(path)
        classes = getattr(run.task, "classes", ())
        if classes and jets.labels and jets.labels != classes:
            raise UserError(f"{path}: jets of {', '.join(jets.labels)}: expected task.classes {', '.join(classes)}")
        return jets.range(0, min(limit or len(jets), len(jets)))
    source = open_events(path)
    return source[:limit] if limit else source


def _some(source: EventSource | Event, chosen: slice) -> EventSource | Event:
    if isinstance(source, Event):
        return source.take(torch.arange(len(source))[chosen])
    return source[chosen]


def _continued(saved: Run, run: Run, path: Path) -> Run:
    """The saved run with the paths and the settings of the loop of now. What is learned must be the same."""
    graph = run.graph
    if isinstance(graph, ProposalConfig) and isinstance(saved.graph, ProposalConfig):
        graph = replace(graph, run=saved.graph.run)  # the weights are in the checkpoint: where they came from is free
        graph = replace(graph, weights=saved.graph.weights)
    for section, now, before in (
        ("graph", graph, saved.graph),
        ("model", run.model, saved.model),
        ("task", run.task, saved.task),
    ):
        if now != before:
            raise UserError(f"{path}: trained with another {section}: {before}, now {now}")
    return replace(saved, data=run.data, train=run.train)


def _trim(log: Path, step: int) -> None:
    """Drop the rows of steps after ``step``: they are about to be done again."""
    if log.exists():
        with log.open(newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) == 5 and int(row[2]) <= step]
        with atomic(log) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows(rows if step else [])


def _flat(optimizer: Any) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors, ``number/key``."""
    state = optimizer.state_dict()["state"]
    return {f"{number}/{key}": torch.as_tensor(value) for number, part in state.items() for key, value in part.items()}


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state = optimizer.state_dict()
    for name, tensor in tensors.items():
        number, key = name.split("/")
        state["state"].setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict(state)
