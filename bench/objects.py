"""How time and memory of condensation grow with the number of points: losses with their gradients, and decoding.

    python -m bench.objects -o bench-objects

makes clouds of blobs in a learned space at constant density, ten points each and a tenth of noise, runs every method on
every size in a process of its own, fits cost ∝ points^k and writes ``objects.md`` and ``objects.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.compare import machine
from bench.measure import peak_memory
from bench.scaling import power
from bench.tracks import describe, write
from cloudchamber.cluster import condense, density, follow
from cloudchamber.losses import condensation, influencer
from cloudchamber.report import Column, markdown_table, memory, seconds
from cloudchamber.threads import use_threads

RADIUS, SPACING, WIDTH = 0.5, 2.0, 0.1  # of the search; between blobs on average, and of a blob
NAMES = {
    "condensation": "condensation, loss",
    "influencer": "influencer, loss",
    "condense": "greedy condensation",
    "follow": "influencer assignment",
    "dbscan": "DBSCAN",
    "hdbscan": "HDBSCAN",
}


def cloud(points: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Places (points, 3), logits of beta and objects (points,)."""
    torch.manual_seed(seed)
    number = points // 10
    label = torch.randint(number, (points,))
    space = (torch.rand(number, 3) * SPACING * number ** (1 / 3))[label] + WIDTH * torch.randn(points, 3)
    return space, torch.randn(points), torch.where(torch.rand(points) < 0.1, -1, label)


def _loss(loss: Callable[..., dict[str, Tensor]], points: int) -> Callable[[], object]:
    space, logit, label = cloud(points)
    second = logit if loss is condensation else space + WIDTH * torch.randn_like(space)
    event = torch.zeros(points, dtype=torch.int64)

    def run() -> object:
        leaves = [rows.clone().requires_grad_() for rows in (space, second)]
        return torch.autograd.grad(torch.stack(list(loss(*leaves, label, event).values())).sum(), leaves)

    return run


def work(method: str, points: int) -> Callable[[], object]:
    """What is measured: a method, by its key in ``NAMES``, on a cloud."""
    if method in ("condensation", "influencer"):
        return _loss(condensation if method == "condensation" else influencer, points)
    space, beta = cloud(points)[0].double().numpy(), torch.sigmoid(cloud(points)[1]).numpy()
    if method == "condense":
        return lambda: condense(space, beta, threshold=0.3, radius=RADIUS)
    if method == "follow":
        leader = space + np.random.default_rng(1).normal(0, WIDTH, space.shape)
        return lambda: follow(space, leader, radius=RADIUS)
    kind: Any = method
    return lambda: density(space, method=kind, radius=RADIUS, core=3)


def measure(method: str, sizes: list[int]) -> list[dict[str, float]]:
    """CPU seconds and peak memory of the process, from the smallest size to the largest; one small run before."""
    use_threads(1)
    work(method, 1000)()
    found = []
    for points in sorted(sizes):
        run = work(method, points)
        start = time.process_time()
        run()
        found.append({"points": points, "cpu": time.process_time() - start, "memory": float(peak_memory())})
    return found


def exponents(found: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """The fitted powers of the points with their errors: of the time, and of the memory above that of the start."""
    points, cpu, peak = (np.array([row[name] for row in found]) for name in ("points", "cpu", "memory"))
    more = peak - peak[0]
    grown = more > 0
    fits = {"cpu": power(points, np.maximum(cpu, 1e-6))[:2]}
    return fits | {"memory": power(points[grown], more[grown])[:2] if grown.sum() > 1 else (math.nan, math.nan)}


def table(found: Mapping[str, list[dict[str, float]]], quantity: str, show: Callable[[Any], str]) -> str:
    """Sizes down, methods across; the last row has the exponents."""
    sizes = [int(row["points"]) for row in next(iter(found.values()))]
    rows = [
        {"points": f"{size:,}".replace(",", " "), **{m: show(f[number][quantity]) for m, f in found.items()}}
        for number, size in enumerate(sizes)
    ]
    fits = {method: exponents(own)[quantity] for method, own in found.items()}
    rows.append({"points": "exponent", **{m: f"{k:.2f} ± {error:.2f}" for m, (k, error) in fits.items()}})
    return markdown_table(rows, [Column("points", "points"), *(Column(m, NAMES[m]) for m in found)])


def main() -> None:
    """Measure how time and memory of condensation grow with the number of points."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", dest="directory", type=Path, default=Path("bench-objects"), help="where to write")
    sizes = [10_000, 30_000, 100_000, 300_000, 1_000_000]
    parser.add_argument("--points", type=int, nargs="+", default=sizes, help="sizes, at least two")
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=[name for name in NAMES if name != "hdbscan"])
    options = parser.parse_args()
    facts, found = machine(), {}
    context = multiprocessing.get_context("spawn")
    for method in options.methods:
        with context.Pool(1) as pool:
            found[method] = pool.apply(measure, (method, options.points))
        print(method, json.dumps(found[method]), flush=True)
    about = "One run of each size on one thread; memory is the largest of the whole process, its exponent that of the"
    parts = ["# Condensation: time and memory over points", f"{describe(facts)} {about} growth over the smallest size."]
    parts += ["CPU time:", table(found, "cpu", seconds), "Peak memory:", table(found, "memory", memory)]
    text = "\n\n".join(parts)
    print(text)
    values = {"machine": facts, "methods": found}
    for path in write(options.directory, {"objects.md": text, "objects.json": json.dumps(values, indent=1)}):
        print(path)


if __name__ == "__main__":
    main()
