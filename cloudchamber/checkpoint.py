"""Checkpoints: weights, the resolved Run and the version in one safetensors file; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cloudchamber.config import Run, parse, with_graph
from cloudchamber.data.store import atomic, one_line
from cloudchamber.errors import UserError
from cloudchamber.tasks import GRAPHS, TASKS, Proposal, ProposalConfig, Task

FORMAT = "cloudchamber checkpoint 1"
#: Track finders that come with the package: one that follows tracks (the default), and a graph network.
SHIPPED = ("follow", "graph")
#: What comes with it and finds other objects: showers in the calorimeter that ``simulate showers`` has.
CLUSTERERS = ("showers",)
#: Taggers that come with it: of jets of top quarks.
TAGGERS = ("top",)


def save(path: str | Path, tensors: Mapping[str, Tensor], run: Run, **extra: Any) -> None:
    """Write tensors, the Run and extra JSON values to one file, atomically."""
    metadata = {
        "format": FORMAT,
        "version": version("cloudchamber"),
        "run": json.dumps(run.to_dict()),
        "extra": json.dumps(extra),
    }
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # of any new file; safetensors would let nobody else read it
        # Names shared in memory are stored once each: safetensors refuses aliases.
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, temporary, metadata)
        temporary.chmod(mode)


def read(path: str | Path) -> tuple[dict[str, Tensor], Run, dict[str, Any]]:
    """Tensors, Run and extra values of a checkpoint.

    Raises ``UserError`` when the file is missing, corrupt or no checkpoint of this program.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UserError(f"{path}: not a cloudchamber checkpoint: expected format {FORMAT!r} in its header")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        raw, extra = json.loads(metadata["run"]), json.loads(metadata["extra"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: corrupt checkpoint: {one_line(error)}") from None
    return tensors, parse(raw, str(path)), extra


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors called ``name/...``, without that prefix: ``weights``, or ``optimizer`` of a checkpoint to resume."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def resolve(run: Run) -> Run:
    """The run with the runs of the checkpoints that it starts from written into it."""
    if isinstance(run.graph, ProposalConfig) and run.graph.run is None:
        if not run.graph.weights:
            raise UserError("graph.weights: a graph of kind 'task' needs the checkpoint of a trained task")
        return with_graph(run, run=read(run.graph.weights)[1].to_dict())
    return run


def build(run: Run) -> Task:
    """The task of a resolved run, untrained. Raises ``UserError`` when its parts do not fit together."""
    kind = TASKS[run.task.kind][1]
    for section, kinds in (("model", kind.models), ("graph", kind.graphs)):
        if (found := getattr(run, section).kind) not in kinds:
            needed = " or ".join(map(repr, kinds))
            raise UserError(f"{section}.kind: a task of kind {run.task.kind!r} needs {needed}, found {found!r}")
    if isinstance(run.graph, ProposalConfig):
        graph: Any = Proposal(build(parse(cast(dict[str, Any], run.graph.run), "graph.run")))
    else:
        graph = GRAPHS[run.graph.kind][1](run.graph)
    return kind(run.task, graph, run.model)


def start(run: Run) -> tuple[Run, Task]:
    """A resolved run and its task to be trained: new weights by the seed, earlier stages with their trained ones."""
    resolved = resolve(run)
    torch.manual_seed(run.train.seed)
    task = build(resolved)
    graph = getattr(task, "graph", None)  # an embedding has none
    if isinstance(graph, Proposal) and run.graph.weights:
        fill(graph.task, part(read(run.graph.weights)[0], "weights"), run.graph.weights)
    return resolved, task


def fill(task: Task, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Put weights into a task. Raises ``UserError`` naming the first that is missing, left over or of another shape."""
    own = task.state_dict()
    for name in sorted(own.keys() ^ tensors.keys()):
        fault = "lacks" if name in own else "has an unexpected"
        raise UserError(f"{where}: {fault} tensor {name!r}: a checkpoint of another configuration")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            _resize(task, name, own[name], tensor, where)
    task.load_state_dict(dict(tensors))


def transfer(task: Task, path: str | Path) -> None:
    """Put the weights of a checkpoint into a task, all but its heads (``Task.heads``), which stay as they are.

    Raises ``UserError`` naming the first that is missing, left over or of another shape.
    """
    trained = part(read(path)[0], "weights")
    own = {name: tensor for name, tensor in task.state_dict().items() if name.startswith(task.heads)}
    fill(task, own | {name: tensor for name, tensor in trained.items() if not name.startswith(task.heads)}, path)


def _resize(task: Task, name: str, own: Tensor, tensor: Tensor, where: str | Path) -> None:
    """Buffers without rows take those that the data gave them (windows); all else has the size of the configuration."""
    module, _, key = name.rpartition(".")
    owner = task.get_submodule(module)
    learned = key in dict(owner.named_buffers(recurse=False)) and own.numel() == 0
    if not learned or own.shape[1:] != tensor.shape[1:]:
        raise UserError(f"{where}: {name}: expected shape {tuple(own.shape)}, found {tuple(tensor.shape)}")
    setattr(owner, key, torch.empty_like(tensor))


def load(path: str | Path) -> tuple[Task, Run]:
    """A trained task, in evaluation mode, and its run. Raises ``UserError`` for a file that is no such checkpoint."""
    tensors, run, _ = read(path)
    task = build(run)
    fill(task, part(tensors, "weights"), path)
    return task.eval(), run


def shipped_model(name: str = SHIPPED[0]) -> Path:
    """The checkpoint of a finder or a tagger that comes with the package."""
    return Path(str(files("cloudchamber") / "models" / f"{name}.safetensors"))


def model_path(model: str | Path | None) -> Path:
    """The checkpoint that is meant: the first that ships for None, one that ships by its name, or a file."""
    name = str(model or SHIPPED[0])
    return shipped_model(name) if name in (*SHIPPED, *CLUSTERERS, *TAGGERS) else Path(name)
