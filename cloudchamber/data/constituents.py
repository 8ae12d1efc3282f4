"""Features of the constituents of jets, relative to the jet that they make up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.ops import squash

#: Column that ``constituent_columns`` adds -> meaning, unit. The axis is that of the sum of the constituents.
KINEMATIC = {
    "deta": ("pseudorapidity from the axis of the jet", ""),
    "dphi": ("azimuth from the axis of the jet, in [-pi, pi)", "rad"),
    "deltar": ("distance from the axis of the jet, sqrt(deta^2 + dphi^2)", ""),
    "lnpt": ("ln(pT / GeV)", ""),
    "lne": ("ln(E / GeV)", ""),
    "lnptrel": ("ln(pT / pT of the jet)", ""),
    "lnerel": ("ln(E / E of the jet)", ""),
}
#: Columns that data may have or not -> meaning, unit.
OPTIONAL = {
    "charge": ("electric charge", "e"),
    "d0": ("transverse impact parameter", "mm"),
    "z0": ("longitudinal impact parameter", "mm"),
    "sigma_d0": ("error of d0", "mm"),
    "sigma_z0": ("error of z0", "mm"),
    "type": ("kind of particle, a whole number", ""),
}
#: Column that ``constituent_columns`` adds where the data have the impact parameters and their errors -> meaning, unit.
#: ``s = d0 / sigma_d0`` (``z0 / sigma_z0``) has the sign of a decay along the axis: positive where the track passes the
#: beam on the side that the jet goes to. 0 without a track.
DISPLACED = {
    "signif_d0": ("lifetime-signed significance of d0, sign(s) ln(1 + |s|)", ""),
    "signif_z0": ("lifetime-signed significance of z0, sign(s) ln(1 + |s|)", ""),
}
#: Column that ``Neighbours`` adds -> meaning, unit: where a point is in the graph.
ENCODINGS = {
    "degree": ("ln(1 + number of neighbours)", ""),
    "return2": ("probability that a random walk along the graph is back after 2 steps", ""),
    "return3": ("probability that a random walk along the graph is back after 3 steps", ""),
    "return4": ("probability that a random walk along the graph is back after 4 steps", ""),
}
MOMENTUM = ("px", "py", "pz", "energy")
LEAST = 1e-12  # GeV: of a transverse momentum or an energy, so that directions and logarithms are finite


def constituent_columns(event: Event) -> Event:
    """The event with the columns of ``KINEMATIC`` and ``pt`` (GeV), float32, from px, py, pz and energy (GeV).

    Those of ``DISPLACED`` are added where the data have what they are made of.
    A batch at once, in float64: an axis far from all constituents loses no digits. A pT or an energy below ``LEAST`` is
    taken as that. Raises ``UserError`` when a column is missing.
    """
    for name in MOMENTUM:
        if name not in event.point and event.rows("point"):
            raise UserError(f"point.{name}: missing: jets have the columns {', '.join(MOMENTUM)}")
    none = torch.zeros(0, device=event.count["point"].device)
    p = torch.stack([event.point.get(name, none).double() for name in MOMENTUM], dim=1)
    index = event.index("point")
    jet = p.new_zeros((len(event), 4)).index_add(0, index, p)
    (pt, eta, phi), (jet_pt, jet_eta, jet_phi) = _polar(p), (column[index] for column in _polar(jet))
    energy, jet_energy = p[:, 3].clamp(min=LEAST), jet[:, 3].clamp(min=LEAST)[index]
    deta, dphi = eta - jet_eta, torch.remainder(phi - jet_phi + math.pi, 2 * math.pi) - math.pi
    columns = {
        "pt": pt,
        "deta": deta,
        "dphi": dphi,
        "deltar": torch.hypot(deta, dphi),
        "lnpt": pt.log(),
        "lne": energy.log(),
        "lnptrel": (pt / jet_pt).log(),
        "lnerel": (energy / jet_energy).log(),
    }
    for name, side in (("d0", -dphi), ("z0", -deta)):
        value, sigma = event.point.get(name), event.point.get(f"sigma_{name}")
        if value is not None and sigma is not None:
            measured = sigma > 0
            significance = value.double().abs() / sigma.double().where(measured, torch.ones_like(side))
            columns[f"signif_{name}"] = squash(significance * torch.sign(side * value) * measured)
    return event.with_columns("point", **{name: column.float() for name, column in columns.items()})


def _polar(p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """pT (GeV), pseudorapidity and azimuth of four-momenta ``(rows, 4)``."""
    pt = torch.hypot(p[:, 0], p[:, 1]).clamp(min=LEAST)
    return pt, torch.asinh(p[:, 2] / pt), torch.atan2(p[:, 1], p[:, 0])


def example_jets(sizes: Sequence[int] = (30, 0, 1, 2, 70), seed: int = 1) -> Event:
    """Jets of so many constituents with all columns, of random numbers: to compare networks on, not to learn from."""
    points, random = sum(sizes), torch.Generator().manual_seed(seed)
    noise = torch.randn((len(OPTIONAL) + 2, points), generator=random)
    pt = torch.empty(points).exponential_(0.1, generator=random) + 0.5
    momentum = (pt * noise[0].mul(0.3).cos(), pt * noise[0].mul(0.3).sin(), pt * noise[1].sinh(), pt * noise[1].cosh())
    point = dict(zip(MOMENTUM, momentum, strict=True)) | dict(zip(OPTIONAL, noise[2:], strict=True))
    point["type"] = (100 * point["type"]).long()
    return Event(point=point, count={"point": torch.tensor(sizes), "scene": torch.ones(len(sizes), dtype=torch.int64)})
