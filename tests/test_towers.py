"""Sums over the cells behind one another."""

import torch

from cloudchamber.data.towers import tower_columns
from cloudchamber.event import Event, batch


def _event(x, y, z, energy):
    columns = {"x": x, "y": y, "z": z, "energy": energy}
    return Event(point={name: torch.tensor(values) for name, values in columns.items()})


ONE = _event([0.0, 0.0, 5.0, 10.0], [0.0, 0.0, 0.0, 0.0], [1.0, 6.0, 1.0, 1.0], [1.0, 2.0, 4.0, 0.5])
TWO = _event([0.0, 5.0], [0.0, 5.0], [1.0, 1.0], [0.25, -0.5])


def test_towers_by_hand():
    found = tower_columns(ONE, 5.5).point
    assert found["tower"].tolist() == [3.0, 3.0, 4.0, 0.5]
    assert found["around"].tolist() == [7.0, 7.0, 7.5, 4.5]
    assert found["peak"].tolist() == [0.75, 0.75, 1.0, 0.125]


def test_towers_of_one_event_know_nothing_of_another():
    found = tower_columns(batch([ONE, TWO]), 7.5).point
    for name in ("tower", "around", "peak"):
        apart = torch.cat([tower_columns(event, 7.5).point[name] for event in (ONE, TWO)])
        assert torch.equal(found[name], apart)
    assert found["around"][4:].tolist() == [-0.25, -0.25]
    assert found["peak"][4:].tolist() == [1.0, 0.0]


def test_an_event_without_points_has_no_towers():
    found = tower_columns(_event(*[[]] * 4), 5.0).point
    assert all(len(found[name]) == 0 for name in ("tower", "around", "peak"))


def test_towers_do_not_depend_on_the_order_of_the_points():
    order = torch.tensor([2, 0, 3, 1])
    turned = ONE.with_columns("point", **{name: values[order] for name, values in ONE.point.items()})
    before, after = (tower_columns(event, 5.5).point for event in (ONE, turned))
    assert all(torch.equal(after[name], before[name][order]) for name in ("tower", "around", "peak"))
