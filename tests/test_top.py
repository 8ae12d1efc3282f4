"""The tagger that ships: small, and right on jets that it has not seen."""

from __future__ import annotations

import pytest
import torch

from cloudchamber import checkpoint
from cloudchamber.checkpoint import model_path
from cloudchamber.event import batch
from cloudchamber.metrics import accuracy


def test_it_is_small_and_says_how_it_was_trained() -> None:
    task, run = checkpoint.load(model_path("top"))
    assert model_path("top").stat().st_size <= 1_000_000
    assert (run.task.kind, run.task.classes, run.data.train) == ("tag", ("qcd", "top"), "jets/train")
    assert not task.training


def test_it_tells_top_quarks_from_other_jets() -> None:
    pytest.importorskip("fastjet", reason="needs cloudchamber[simulate]")
    pytest.importorskip("pythia8mc", reason="needs cloudchamber[simulate]")
    from cloudchamber.data.jets import JetsConfig, simulate

    jets = batch(simulate(JetsConfig(process=("qcd", "top"), seed=4), 200))
    task, run = checkpoint.load(model_path("top"))
    with torch.inference_mode():
        scene = task.decode(task.prepare(jets)).scene
    probability = torch.stack([scene[f"p_{name}"] for name in run.task.classes], dim=1).numpy()
    assert (
        float(accuracy(probability, jets.scene["label"].numpy()).value) > 0.85
    )  # five standard errors below what it reaches
