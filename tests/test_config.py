"""Settings: what is accepted, how mistakes are named, and that nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from cloudchamber.config import load, override, parse, with_graph
from cloudchamber.errors import UserError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))
RAW: dict[str, Any] = {"model": {"kind": "message", "width": 8}, "task": {"kind": "edges"}}


def changed(section: str, **values: Any) -> dict[str, Any]:
    return {**RAW, section: {**RAW.get(section, {}), **values}}


def plain(value: Any) -> Any:
    """As TOML holds it: without None."""
    return {k: plain(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_survives_toml_and_json(path: Path, tmp_path: Path) -> None:
    run = load(path)
    assert parse(run.to_dict(), "again") == run
    assert parse(json.loads(json.dumps(run.to_dict())), "again") == run
    copy = tmp_path / "copy.toml"
    copy.write_text(tomli_w.dumps(plain(run.to_dict())))
    assert load(copy) == run


def test_defaults_and_their_override() -> None:
    run = parse(RAW, "test")
    assert (run.graph.kind, run.train.rate, run.model.width) == ("windows", 1e-3, 8)
    settings = [
        "train.rate=3e-4",
        "train.epochs=2",
        "data.train=some/where",
        "graph.levels=[0.1, 0.2]",
        "model.gate=false",
    ]
    run = parse(override(RAW, settings), "test")
    assert (run.train.rate, run.train.epochs, run.data.train) == (3e-4, 2, "some/where")
    assert (run.graph.levels, run.model.gate) == ((0.1, 0.2), False)
    assert RAW == {"model": {"kind": "message", "width": 8}, "task": {"kind": "edges"}}
    assert parse(override(RAW, ["train.rate=1"]), "test").train.rate == 1.0
    assert with_graph(run, worth=0.5).graph.worth == 0.5


@pytest.mark.parametrize("setting", ["rate=1", "train.rate", "train.=1", ".rate=1", "=", ""])
def test_an_override_of_another_form_is_refused(setting: str) -> None:
    with pytest.raises(UserError, match=r"SECTION\.KEY=VALUE"):
        override(RAW, [setting])


def test_an_override_of_what_is_no_section() -> None:
    with pytest.raises(UserError, match="no table"):
        override({"train": 3}, ["train.rate=1"])


MISTAKES = {
    "unknown key": (changed("train", epohcs=3), r"test: train: unknown key 'epohcs'; did you mean 'epochs'\?"),
    "unknown section": ({**RAW, "trian": {}}, r"test: unknown key 'trian'; did you mean 'train'\?"),
    "text for a number": (changed("train", rate="fast"), r"test: train\.rate: .*number.*found 'fast'"),
    "number in quotes": (changed("train", epochs="3"), r"test: train\.epochs: .*integer.*found '3'"),
    "flag for a number": (changed("train", epochs=True), r"test: train\.epochs: .*integer.*found True"),
    "fraction for a count": (changed("train", epochs=2.5), r"test: train\.epochs: .*integer.*found 2\.5"),
    "number for text": (changed("data", train=3), r"test: data\.train: .*string.*found 3"),
    "number for a list": (changed("graph", kind="windows", levels=0.1), r"test: graph\.levels: .*tuple.*found 0\.1"),
    "wrong item": (changed("graph", kind="windows", levels=[0.1, "a"]), r"test: graph\.levels: .*number"),
    "unknown choice": (changed("task", build="stroll"), r"test: task\.build: .*'walk' or 'components'.*found 'stroll'"),
    "unknown kind": (
        changed("task", kind="edgse"),
        r"test: task\.kind: expected one of edges, embed, quality, tag, condense, found 'edgse'",
    ),
    "kind of another type": (changed("model", kind=["mlp"]), r"test: model\.kind: expected one of .*found \['mlp'\]"),
    "no kind": ({"model": RAW["model"]}, r"test: task\.kind: expected one of .*found None"),
    "no table": ({**RAW, "train": 3}, r"test: train: expected a table of settings, found 3"),
    "nothing like it": ([1], r"test: expected a table of settings, found \[1\]"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    raw, message = MISTAKES[name]
    with pytest.raises(UserError, match=message) as caught:
        parse(raw, "test")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), (b"a = ", "not a TOML file"), (b"\xff\xfe", "not a TOML file")]
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
