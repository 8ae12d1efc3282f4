"""Run: everything that defines a training, from TOML to frozen dataclasses and back."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from cloudchamber.errors import UserError
from cloudchamber.nn import BLOCKS
from cloudchamber.tasks import GRAPHS, TASKS

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Directories of events to train on and to validate with; ``events`` and ``valid_events`` limit them (0: all)."""

    train: str = ""
    valid: str = ""
    events: int = 0
    valid_events: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the loop.

    ``epochs``, peak learning ``rate`` (AdamW, one warm-up over ``warmup`` of the steps, then a cosine), ``decay`` of
    weights, ``clip`` of the gradient norm, ``points`` per step at most (whole events, at least one), ``fit`` events for
    what is learned without gradients, ``seed``; ``every`` so many steps the state is saved. ``cache``: keep prepared
    events in memory. ``start``: a checkpoint whose weights it begins with, but for the heads. ``accelerator``,
    ``devices``, ``strategy`` and ``precision`` as in Lightning Fabric.
    """

    epochs: int = 10
    rate: float = 1e-3
    warmup: float = 0.05
    decay: float = 1e-2
    clip: float = 1.0
    points: int = 1
    fit: int = 16
    seed: int = 1
    every: int = 50
    cache: bool = True
    start: str = ""
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    precision: str = "32-true"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: ``data -> graph -> model -> task``, by ``train``. Settings are described beside their class."""

    data: DataConfig
    graph: Any
    model: Any
    task: Any
    train: TrainConfig

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, as TOML and JSON hold them."""
        return cast(dict[str, Any], _plain(asdict(self)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def parse(raw: Mapping[str, Any], where: str) -> Run:
    """Check nested dictionaries and make a Run of them; ``where`` names their source in errors.

    Raises ``UserError`` for unknown keys (with the nearest known one), kinds and values of a wrong type.
    """
    _known(_table(raw, where), [f.name for f in fields(Run)], where)
    tables: dict[str, Mapping[str, tuple[type, type]]] = {"graph": GRAPHS, "model": BLOCKS, "task": TASKS}
    sections: dict[str, Any] = {}
    for name, config in (("data", DataConfig), ("train", TrainConfig)):
        sections[name] = _leaf(config, raw.get(name, {}), f"{where}: {name}")
    task = _table(raw.get("task", {}), f"{where}: task").get("kind")
    graph = TASKS[task][1].graphs[0] if isinstance(task, str) and task in TASKS else "windows"
    for name, table in tables.items():
        default = {"kind": graph} if name == "graph" else {}
        section = {**default, **_table(raw.get(name, {}), f"{where}: {name}")}
        kind = section.get("kind")
        if not isinstance(kind, str) or kind not in table:
            raise UserError(f"{where}: {name}.kind: expected one of {', '.join(table)}, found {kind!r}")
        sections[name] = _leaf(table[kind][0], section, f"{where}: {name}")
    return Run(**sections)


def _table(section: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(section, Mapping):
        raise UserError(f"{where}: expected a table of settings, found {section!r}")
    return section


def _known(section: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for key in section:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0)
            raise UserError(f"{where}: unknown key {key!r}; did you mean {near[0]!r}?")


def _leaf(config: type[T], section: Any, where: str) -> T:
    hints = get_type_hints(config)
    _known(_table(section, where), list(hints), where)
    values: dict[str, Any] = {}
    for key, value in section.items():
        given = tuple(value) if isinstance(value, list) else value  # TOML and JSON have no tuples
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(given, strict=True)  # "3" and true are no numbers
        except ValidationError as error:
            raise UserError(f"{where}.{key}: {error.errors()[0]['msg']}, found {value!r}") from None
    return config(**values)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Read a TOML file and apply overrides such as ``train.rate=3e-4`` (the value is TOML, or else a string)."""
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a TOML file: {error}") from None
    return parse(override(raw, overrides), str(path))


def override(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Nested dictionaries with ``section.key=value`` settings applied. Raises ``UserError`` for another form."""
    result = {name: dict(section) if isinstance(section, Mapping) else section for name, section in raw.items()}
    for setting in overrides:
        name, equals, text = setting.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot and section and key):
            raise UserError(f"setting {setting!r}: expected SECTION.KEY=VALUE, for example train.rate=3e-4")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        if not isinstance(result.setdefault(section, {}), dict):
            raise UserError(f"setting {setting!r}: {section} is no table of settings, but {result[section]!r}")
        result[section][key] = value
    return result


def with_graph(run: Run, /, **changes: Any) -> Run:
    """A copy with settings of the graph changed."""
    return replace(run, graph=replace(run.graph, **changes))
