"""Track matching against examples worked out by hand, a brute-force score and its invariances."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch
from cloudchamber.metrics import (
    METRICS,
    STYLES,
    Fraction,
    Match,
    Selection,
    duplicate_rate,
    edge_efficiency_purity,
    efficiency,
    fake_rate,
    matched,
    purity,
    trackml_score,
)

# The example. Particles A, B, C have 4, 3, 3 hits; two hits are noise (N).
#   hit          1   2   3   4   5   6   7   8    9    10  11  12
#   particle     A   A   A   A   B   B   B   C    C    C   N   N
#   weight       .1  .1  .1  .1  .1  .1  .1  .05  .05  .2  0   0
#   track        0   0   0   2   1   1   1   2    3    3   3   4
#
#   track  majority      f_truth  f_reco  standard  double  strict
#   0      A             3/3      3/4     yes       yes     no
#   1      B             3/3      3/3     yes       yes     yes
#   2      C (A has as many hits in it, but C is the smaller particle)
#                        1/2      1/3     yes       no      no
#   3      C             2/3      2/3     yes       yes     no
#   4      none          0        0       no        no      no
PARTICLES = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, -1, -1]
WEIGHTS = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.2, 0.0, 0.0]
TRACKS = [0, 0, 0, 2, 1, 1, 1, 2, 3, 3, 3, 4]


def cloud(objects: list[int], number: int | None = None, ids: list[int] | None = None, **columns: object) -> Event:
    """An event whose points belong to objects; further columns start with the name of their level."""
    rows = max(objects, default=-1) + 1 if number is None else number
    names = list(range(1, len(objects) + 1)) if ids is None else ids
    point = {"id": torch.tensor(names, dtype=torch.int64), "object": torch.tensor(objects, dtype=torch.int64)}
    levels = {"point": point, "object": {"id": torch.arange(rows)}}
    for name, values in columns.items():
        level, _, column = name.partition("_")
        levels[level][column] = torch.as_tensor(values, dtype=torch.float64)
    return Event(**levels)


TRUTH = cloud(PARTICLES, point_weight=WEIGHTS)
PREDICTED = cloud(TRACKS)


def counts(fraction: Fraction) -> tuple[int, int]:
    return int(fraction.passed), int(fraction.total)


def test_match_by_hand() -> None:
    match = Match.of(PREDICTED, TRUTH)
    shared = dict(zip(zip(match.track.tolist(), match.particle.tolist(), strict=True), match.shared, strict=True))
    assert shared == {(0, 0): 3, (1, 1): 3, (2, 0): 1, (2, 2): 1, (3, 2): 2}
    assert match.weight is not None
    np.testing.assert_allclose(match.weight, [0.3, 0.3, 0.1, 0.05, 0.25])
    assert match.track_hits.tolist() == [3, 3, 2, 3, 1]
    assert match.particle_hits.tolist() == [4, 3, 3]
    assert match.majority.tolist() == [0, 1, 2, 2, -1]
    assert match.majority_shared.tolist() == [3, 3, 1, 2, 0]


@pytest.mark.parametrize(
    ("style", "tracks", "eff", "pure", "duplicate"),
    [
        ("standard", [1, 1, 1, 1, 0], (3, 3), (4, 5), (1, 5)),  # 2 and 3 both match C
        ("double", [1, 1, 0, 1, 0], (3, 3), (3, 5), (0, 5)),
        ("strict", [0, 1, 0, 0, 0], (1, 3), (1, 5), (0, 5)),
    ],
)
def test_styles_by_hand(
    style: str, tracks: list[int], eff: tuple[int, int], pure: tuple[int, int], duplicate: tuple[int, int]
) -> None:
    match = Match.of(PREDICTED, TRUTH)
    assert matched(match, style).tolist() == [bool(t) for t in tracks]
    assert counts(efficiency(match, style)) == eff
    assert counts(purity(match, style)) == pure
    assert counts(fake_rate(match, style)) == (pure[1] - pure[0], pure[1])
    assert counts(duplicate_rate(match, style)) == duplicate


@pytest.mark.parametrize("hits", [2, 4])
def test_double_majority_needs_more_than_half(hits: int) -> None:
    # Exactly half of the particle's hits in the track, or half of the track's hits of the particle, is not enough.
    half = cloud([0] * (hits // 2) + [-1] * (hits // 2))
    mixed = cloud([0] * (2 * hits))
    truth, noisy = cloud([0] * hits), cloud([0] * hits + [-1] * hits)
    for match in (Match.of(half, truth), Match.of(mixed, noisy)):
        assert matched(match, "standard").tolist() == [True]
        assert matched(match, "double").tolist() == [False]


def test_first_track_shares_most_hits() -> None:
    # One particle of 6 hits split into tracks of 1, 3 and 2: all match by single majority, two are duplicates.
    match = Match.of(cloud([0, 1, 1, 1, 2, 2]), cloud([0] * 6))
    size = match.track_hits
    assert counts(duplicate_rate(match, "standard")) == (2, 3)
    assert duplicate_rate(match, "standard", values=size, bins=[1, 2, 3, 4]).passed.tolist() == [1, 1, 0]


def test_score_by_hand() -> None:
    # Tracks 0, 1, 3 are good: A .1 + .1 + .1, B .1 + .1 + .1, C .05 + .2 of a total of 1.
    match = Match.of(PREDICTED, TRUTH)
    np.testing.assert_allclose(trackml_score(match), [0.85])
    # Phase 2 with A and C: (.3 + .25) of (.4 + .3).
    np.testing.assert_allclose(trackml_score(match, np.array([True, False, True])), [0.55 / 0.7])
    assert np.isnan(trackml_score(match, np.zeros(3, dtype=bool))).all()
    with pytest.raises(UserError, match=r"point\.weight"):
        trackml_score(Match.of(PREDICTED, cloud(PARTICLES)))


def test_hits_left_out_have_no_track() -> None:
    # Without hits 3, 4 and 12, shuffled: track 0 = {1, 2} holds exactly half of A; track 2 = {8}; track 4 is gone.
    ids = [10, 1, 9, 2, 8, 5, 6, 7, 11]
    match = Match.of(cloud([TRACKS[i - 1] for i in ids], number=5, ids=ids), TRUTH)
    assert match.track_hits.tolist() == [2, 3, 1, 3, 0]
    assert match.particle_hits.tolist() == [4, 3, 3]
    assert counts(purity(match, "double")) == (2, 4)
    assert counts(purity(match, "standard")) == (4, 4)
    np.testing.assert_allclose(trackml_score(match), [0.3 + 0.25])


def test_selection_by_hand() -> None:
    # pT = 5, 1, 0.5 GeV; eta = asinh(pz / pT) = 0, asinh(10) = 2.998, -0.881; vertex radius 0, 5, 50 mm.
    kinematics = {
        "object_px": [3.0, 0.0, 0.5],
        "object_py": [4.0, 1.0, 0.0],
        "object_pz": [0.0, 10.0, -0.5],
        "object_vx": [0.0, 3.0, 30.0],
        "object_vy": [0.0, 4.0, 40.0],
        "object_charge": [1.0, -1.0, 0.0],
    }
    truth = cloud(PARTICLES, point_weight=WEIGHTS, **kinematics)
    match = Match.of(PREDICTED, truth)

    def chosen(selection: Selection) -> list[int]:
        return np.flatnonzero(selection.particles(match, truth)).tolist()

    assert chosen(Selection()) == [0, 1, 2]
    assert chosen(Selection(min_hits=4)) == [0]
    assert chosen(Selection(pt_min=1.0)) == [0, 1]
    assert chosen(Selection(pt_min=0.5, pt_max=1.0)) == [2]
    assert chosen(Selection(eta_max=2.9)) == [0, 2]
    assert chosen(Selection(eta_max=3.0)) == [0, 1, 2]
    assert chosen(Selection(radius_max=5.0)) == [0]
    assert chosen(Selection(radius_max=5.1)) == [0, 1]
    assert chosen(Selection(charged=True)) == [0, 1]

    selection = Selection(pt_min=1.0)
    particles, tracks = selection.particles(match, truth), selection.tracks(match)
    assert tracks.tolist() == [True, True, False, True, False]  # at least 3 hits
    assert counts(efficiency(match, "strict", particles=particles, tracks=tracks)) == (1, 2)
    # Track 3 matches C of pT 0.5, outside the selection, yet it is no fake: C is a true particle.
    assert counts(fake_rate(match, "double", tracks=tracks)) == (0, 3)
    assert counts(fake_rate(match, "double", tracks=Selection(min_track_hits=2).tracks(match))) == (1, 4)
    # pT of particles in bins 0-1-2-5: C, B, A; 5 belongs to the last bin, closed at its end.
    binned = efficiency(match, "strict", values=np.array([5.0, 1.0, 0.5]), bins=[0, 1, 2, 5])
    assert binned.passed.tolist() == [0, 1, 0]
    assert binned.total.tolist() == [1, 1, 1]
    # Duplicates by the pT of their particle: tracks 2 and 3 of C; track 4 has no particle and lies in no bin.
    values = match.of_majority([5.0, 1.0, 0.5])
    binned = duplicate_rate(match, "standard", values=values, bins=[0, 1, 2, 5])
    assert binned.passed.tolist() == [1, 0, 0]
    assert binned.total.tolist() == [2, 1, 1]


def test_reconstructed_region() -> None:
    # The fake, track 4, has reconstructed pT 2 GeV; tracks 0 and 3 lie in the region, 2 has no fit.
    predicted = cloud(TRACKS, object_pt=[5.0, 0.9, np.nan, 1.5, 2.0], object_eta=[0.0, 0.0, 0.0, 1.0, -4.5])
    match = Match.of(predicted, TRUTH)
    region = Selection(pt_min=1.0, min_track_hits=1)
    assert counts(fake_rate(match, tracks=region.tracks(match, predicted))) == (1, 3)
    region = Selection(pt_min=1.0, eta_max=4.0, min_track_hits=1)
    assert counts(fake_rate(match, tracks=region.tracks(match, predicted))) == (0, 2)
    with pytest.raises(UserError, match=r"object\.pt"):
        region.tracks(match, PREDICTED)


def test_edges_by_hand() -> None:
    # Kept: 3 edges, 2 of them true; candidates hold 3 true edges of 5 in the event.
    label, kept = [1, 1, 1, 0, 0], [1, 1, 0, 1, 0]
    assert [counts(f) for f in edge_efficiency_purity(label, kept, 5)] == [(2, 5), (2, 3)]
    assert [counts(f) for f in edge_efficiency_purity(label, kept)] == [(2, 3), (2, 3)]
    assert counts(edge_efficiency_purity(torch.tensor(label) > 0, torch.tensor(kept) > 0)[0]) == (2, 3)
    with pytest.raises(ValueError, match="passed <= total"):
        edge_efficiency_purity(label, kept, 1)
    with pytest.raises(ValueError, match="shape"):
        edge_efficiency_purity(label, [True])


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (cloud([0, 0], ids=[1, 1]), TRUTH, "predicted point.id occurs twice: 1"),
        (cloud([0, 0], ids=[1, 99]), TRUTH, "predicted point.id is not in the truth: 99"),
        (PREDICTED, cloud([0, 0], ids=[7, 7]), "true point.id occurs twice: 7"),
        (cloud([0]), cloud([], ids=[]), "predicted point.id is not in the truth: 1"),
        (cloud([3], number=2), TRUTH, "predicted point.object is no row of object: 3"),
        (cloud([-2], number=1), TRUTH, "predicted point.object is no row of object: -2"),
        (cloud([0]).with_columns("point", object=torch.zeros(1)), TRUTH, "expected integers, got float32"),
        (Event(point={"object": torch.tensor([0])}), TRUTH, r"missing column point.id; found: object"),
        (Event(point={"id": torch.tensor([1])}), TRUTH, r"missing column point.object; found: id"),
        (PREDICTED, batch([TRUTH, TRUTH]), "prediction of 1 events, truth of 2"),
        (
            batch([cloud([0]), cloud([0])]).with_columns("point", object=torch.tensor([1, 1])),
            batch([TRUTH, TRUTH]),
            "predicted point.object lies in another event: 1 .event 0",
        ),
    ],
)
def test_mistakes(predicted: Event, truth: Event, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Match.of(predicted, truth)
    with pytest.raises(UserError, match="expected one of standard, double, strict"):
        matched(Match.of(PREDICTED, TRUTH), "triple")


def test_empty_events() -> None:
    match = Match.of(cloud([]), cloud([], point_weight=[]))
    for style in STYLES:
        assert all(counts(metric(match, style)) == (0, 0) for metric in METRICS.values())
    assert np.isnan(trackml_score(match)).all()
    match = Match.of(cloud([], ids=[]), TRUTH)
    assert counts(efficiency(match)) == (0, 3)
    assert trackml_score(match).tolist() == [0.0]


def test_labels_without_a_table_of_objects() -> None:
    predicted = Event(point=PREDICTED.point)
    assert counts(purity(Match.of(predicted, TRUTH))) == (3, 5)


def test_huge_ids() -> None:
    ids = [-(2**62), 2**62, 0]
    truth = batch([cloud([0, 0, 0], ids=ids)] * 3)
    assert counts(efficiency(Match.of(batch([cloud([0, 0, 0], ids=ids[::-1])] * 3), truth), "strict")) == (3, 3)


Points = list[tuple[int, int, int]]  # (particle, track, weight) of each hit
points = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4), st.integers(1, 9)), max_size=40)
many = settings(max_examples=40, deadline=None)


def pair(hits: Points) -> tuple[Event, Event]:
    truth = cloud([p for p, _, _ in hits], number=5, point_weight=[w if p >= 0 else 0 for p, _, w in hits])
    return cloud([t for _, t, _ in hits], number=5), truth


def brute_force_score(hits: Points) -> float:
    """The score of the contest with dictionaries only."""
    particle_hits = Counter(p for p, _, _ in hits)
    total = sum(w for p, _, w in hits if p >= 0)
    if not total:
        return float("nan")
    score = 0
    for track in {t for _, t, _ in hits} - {-1}:
        inside = [(p, w) for p, t, w in hits if t == track]
        particle, shared = Counter(p for p, _ in inside).most_common(1)[0]
        if particle >= 0 and 2 * shared > len(inside) and 2 * shared > particle_hits[particle]:
            score += sum(w for p, w in inside if p == particle)
    return score / total


@many
@given(points)
def test_score_equals_brute_force(hits: Points) -> None:
    np.testing.assert_allclose(trackml_score(Match.of(*pair(hits))), [brute_force_score(hits)], rtol=1e-12)


@many
@given(points, st.permutations(range(5)), st.randoms(use_true_random=False))
def test_order_of_hits_and_names_of_tracks_do_not_matter(hits: Points, names: list[int], random) -> None:
    predicted, truth = pair(hits)
    order = list(range(len(hits)))
    random.shuffle(order)
    labels = torch.tensor([*names, -1])[predicted.point["object"]]
    other = Event(point={"id": predicted.point["id"][order], "object": labels[order]}, object=predicted.object)
    random.shuffle(order)
    turned = Event(point={k: v[order] for k, v in truth.point.items()}, object=truth.object)
    one, two = Match.of(predicted, truth), Match.of(other, turned)
    for style in STYLES:
        for metric in METRICS.values():
            assert metric(one, style) == metric(two, style)
    np.testing.assert_allclose(trackml_score(one), trackml_score(two), rtol=1e-12)


@many
@given(st.lists(points, min_size=1, max_size=4))
def test_batch_is_the_sum_of_its_events(events: list[Points]) -> None:
    pairs = [pair(hits) for hits in events]
    together = Match.of(batch(p for p, _ in pairs), batch(t for _, t in pairs))
    single = [Match.of(*p) for p in pairs]
    for style in STYLES:
        for metric in METRICS.values():
            assert metric(together, style) == sum(metric(match, style) for match in single)
    np.testing.assert_allclose(trackml_score(together), np.concatenate([trackml_score(m) for m in single]), rtol=1e-12)


@many
@given(points)
def test_styles_are_nested(hits: Points) -> None:
    match = Match.of(*pair(hits))
    standard, double, strict = (matched(match, style) for style in ("standard", "double", "strict"))
    assert not (strict & ~double).any()
    assert not (double & ~standard).any()
    assert counts(duplicate_rate(match, "double"))[0] == 0


@pytest.mark.parametrize(("passed", "total"), [(0, 10), (10, 10), (3, 10), (997, 1000), (1, 1), (0, 1)])
def test_interval_against_scipy(passed: int, total: int) -> None:
    fraction = Fraction(passed, total)
    for probability in (0.6826894921370859, 0.95):
        expected = stats.binomtest(passed, total).proportion_ci(probability, method="exact")
        np.testing.assert_allclose(fraction.interval(probability), (expected.low, expected.high), rtol=1e-9, atol=1e-12)
    assert fraction.low <= fraction.value <= fraction.high
    assert (float(fraction.low), float(fraction.high)) == tuple(float(x) for x in fraction.interval())


def test_fraction() -> None:
    half = Fraction(np.array([1, 0]), np.array([2, 0]))
    np.testing.assert_array_equal(half.value, [0.5, np.nan])
    assert (half.low[1], half.high[1]) == (0.0, 1.0)
    assert half + half == Fraction(np.array([2, 0]), np.array([4, 0]))
    assert half.complement() == half
    assert sum([Fraction(1, 2), Fraction(2, 2)]) == Fraction(3, 4)
    assert float(Fraction(3, 4)) == 0.75
    # The ends solve P(at most 3 of 4) = 1 - p^4 = a and P(at least 3 of 4) = 4 p^3 - 3 p^4 = a = 0.15866:
    # p = (1 - a)^(1/4) = 0.9577 and p = 0.3816.
    assert str(Fraction(3, 4)) == "0.7500 +0.2077 -0.3684 (3/4)"
    assert str(half).endswith(", - (0/0)]")
    for wrong in ((3, 2), (-1, 2), (0.5, 1), (np.array([1, 2]), 2)):
        with pytest.raises(ValueError, match="Fraction"):
            Fraction(*wrong)
    with pytest.raises(ValueError, match="shapes"):
        half + Fraction(1, 2)
    with pytest.raises(TypeError):
        half + 1
    with pytest.raises(ValueError, match="both"):
        Fraction.of(np.array([True]), bins=[0, 1])
    with pytest.raises(ValueError, match="values has shape"):
        Fraction.of(np.array([True]), [1, 2], [0, 1])
    outside = Fraction.of(np.array([True, True, False]), [np.nan, 5.0, 0.5], [0, 1])
    assert (outside.passed.tolist(), outside.total.tolist()) == ([0], [1])
