"""The benches of condensation: what they measure, the fit, the tables, and wedges of events."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest
import torch

from bench import objects, tracks
from bench.wedges import cut
from cloudchamber.event import Event


@pytest.mark.parametrize("method", objects.NAMES)
def test_every_method_is_measured(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "use_threads", lambda number: None)
    rows = objects.measure(method, [400, 200])
    assert [row["points"] for row in rows] == [200, 400]
    assert all(row["cpu"] > 0 and row["memory"] > 1e7 for row in rows)


def test_exponents_and_tables() -> None:
    rows = [{"points": n, "cpu": 1e-6 * n**1.5, "memory": 1e8 + 50.0 * (n - 1000)} for n in (1000, 10_000, 100_000)]
    fits = objects.exponents(rows)
    assert fits["cpu"][0] == pytest.approx(1.5)
    assert fits["memory"][0] == pytest.approx(1.0, abs=0.1)
    lines = objects.table({"condense": rows}, "cpu", lambda value: f"{value:.3g} s").splitlines()
    assert "greedy condensation" in lines[0]
    assert "1.50 ± 0.00" in lines[-1]


def test_wedges_hold_every_hit_once(toys: list[Event]) -> None:
    event = toys[0]
    parts = cut(event, 5)
    assert sorted(torch.cat([part.point["id"] for part in parts]).tolist()) == sorted(event.point["id"].tolist())
    particle = dict(zip(event.point["id"].tolist(), event.point["object"].tolist(), strict=True))
    for part in parts:
        own = part.point["object"] >= 0
        assert torch.equal(
            torch.bincount(part.point["object"][own], minlength=part.rows("object")), part.object["hits"]
        )
        assert (part.object["hits"] > 0).all()
        number = part.object["id"][part.point["object"][own]] - 100  # that of the toy's particle
        assert number.tolist() == [particle[row] for row in part.point["id"][own].tolist()]


def test_names_of_further_finders() -> None:
    assert tracks._named("mine=a/b.safetensors") == ("mine", Path("a/b.safetensors"))
    for wrong in ("mine", "follow=x", "a/b=x"):
        with pytest.raises(ArgumentTypeError, match="expected NAME=CHECKPOINT"):
            tracks._named(wrong)
