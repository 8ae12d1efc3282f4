"""The house plan: who may import whom, read from the syntax trees, deferred imports included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import cloudchamber

PACKAGE = Path(cloudchamber.__file__).parent

#: Rooms from the ground floor up (docs/architecture.md). A room imports from lower floors only, never from its own.
FLOORS = (
    ("errors", "ops", "physics", "threads"),
    ("event", "follow", "pool", "sets"),
    ("data", "nn", "losses", "cluster", "metrics"),
    ("tasks", "outcome"),
    ("config", "predictions"),
    ("checkpoint",),
    ("export",),
    ("reconstruct",),
    ("train", "predict"),
    ("evaluate",),
    ("tagged",),
    ("report",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: str) -> str:
    """The room of a module, given by its path within the package."""
    return Path(path).parts[0].removesuffix(".py")


def imported(source: str, path: str) -> set[str]:
    """The rooms of this package that a module imports anywhere in its body."""
    parents = ["cloudchamber", *Path(path).parts[:-1]]
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{stem}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            names.append(str(getattr(node.args[0], "value", "")))
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "cloudchamber" and len(part) > 1}


@pytest.mark.parametrize("path", MODULES)
def test_modules_import_from_lower_floors_only(path: str) -> None:
    own = room(path)
    assert own in FLOOR, f"{path}: a room that docs/architecture.md does not know"
    for other in imported((PACKAGE / path).read_text(), path) - {own}:
        assert other in FLOOR, f"{path} imports {other}"
        assert FLOOR[other] < FLOOR[own], f"{path} imports {other}, which is not below {own}"


def test_the_walk_sees_every_form_of_import() -> None:
    source = """
import cloudchamber.ops
from cloudchamber import physics
from cloudchamber.event import Event
from . import cluster
from ..errors import UserError
def f():
    if True:
        from cloudchamber.report.tables import x
        importlib.import_module("cloudchamber.train")
"""
    found = imported(source, "nn/mlp.py")
    assert found == {"ops", "physics", "event", "errors", "report", "train", "nn"}


def test_no_module_is_imported_from_outside_its_dependencies() -> None:
    """Optional packages are imported only where they are used, never by importing a module."""
    for path in MODULES:
        for node in ast.parse((PACKAGE / path).read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            optional = {"acts", "pythia8mc", "fastjet", "h5py", "hdf5plugin", "uproot"}
            optional |= {"dask", "distributed", "onnx", "onnxruntime"}
            assert not {name.split(".")[0] for name in names} & optional, path
