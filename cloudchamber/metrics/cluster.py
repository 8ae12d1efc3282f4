"""Two groupings of the same points: how they are laid side by side, and how well they agree (V-measure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics.fraction import Floats, Ints, ratio, sums

Noise = Literal["drop", "own", "label"]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The points of a truth event (or batch) in its order: the track and the particle of each, -1 for none.

    ``track``, ``particle``, ``event``, ``weight``, shape ``(points,)``; ``weight`` is ``point.weight`` of the truth,
    None if absent. ``tracks``: the number of tracks. ``particle_event``, ``(particles,)``: the event of each particle.
    """

    track: Ints
    particle: Ints
    event: Ints
    weight: Floats | None
    tracks: int
    particle_event: Ints
    events: int


def align(predicted: Event, truth: Event) -> Labels:
    """Lay a prediction on the points of the truth, by event and ``point.id``; a point it leaves out has no track.

    The predicted points may come in any order. Each event of a batch is compared with the event of the same place.
    Raises ``UserError`` when a column ``id`` or ``object`` is missing, the numbers of events differ, an id occurs twice
    in an event or is not in the truth, or ``point.object`` is no row of the objects of its own event.
    """
    if len(predicted) != len(truth):
        raise UserError(f"prediction of {len(predicted)} events, truth of {len(truth)}: expected the same events")
    label, track_event = _objects(predicted, "predicted")
    particle, particle_event = _objects(truth, "true")
    rows = _rows_in(predicted, truth)
    track = np.full(len(particle), -1, dtype=np.int64)
    track[rows] = label
    return Labels(
        track=track,
        particle=particle,
        event=_numpy(truth.index("point")),
        weight=_numpy(truth.point["weight"]).astype(np.float64) if "weight" in truth.point else None,
        tracks=len(track_event),
        particle_event=particle_event,
        events=len(truth),
    )


def column(event: Event, level: str, name: str) -> NDArray[Any]:
    """A column as a numpy array. Raises ``UserError`` when it is missing."""
    columns = getattr(event, level)
    if name not in columns:
        raise UserError(f"missing column {level}.{name}; found: {', '.join(columns) or 'none'}")
    return _numpy(columns[name])


def _rows_in(predicted: Event, truth: Event) -> Ints:
    """The row in the truth of each predicted point."""
    theirs, ours = column(predicted, "point", "id"), column(truth, "point", "id")
    names = np.concatenate([theirs, ours])
    low, high = (int(names.min()), int(names.max())) if len(names) else (0, 0)
    span = high - low + 1
    if span * len(truth) >= 2**63:  # huge ids: number them
        names, low = np.unique(names, return_inverse=True)[1], 0
        span = len(names)
    keys = names - low
    their_event, our_event = _numpy(predicted.index("point")), _numpy(truth.index("point"))
    their_key, our_key = keys[: len(theirs)] + span * their_event, keys[len(theirs) :] + span * our_event
    order = np.argsort(our_key, kind="stable")
    ordered = our_key[order]
    _refuse("true point.id occurs twice", ordered[1:] == ordered[:-1], ours[order][1:], our_event[order][1:])
    place = np.minimum(np.searchsorted(ordered, their_key), max(len(ordered) - 1, 0))
    unknown = ordered[place] != their_key if len(ordered) else np.ones(len(their_key), dtype=bool)
    _refuse("predicted point.id is not in the truth", unknown, theirs, their_event)
    rows = order[place] if len(ordered) else np.zeros(0, dtype=np.int64)
    twice = np.bincount(rows, minlength=1)[rows] > 1
    _refuse("predicted point.id occurs twice", twice, theirs, their_event)
    return rows


def _objects(event: Event, name: str) -> tuple[Ints, Ints]:
    """``point.object``, checked, and the event of each object; one event may come without a table of objects."""
    label = column(event, "point", "object")
    if label.dtype.kind not in "iu":
        raise UserError(f"{name} point.object: expected integers, got {label.dtype}")
    of_point, of_object = _numpy(event.index("point")), _numpy(event.index("object"))
    if not event.object and len(event) == 1:
        of_object = np.zeros(int(label.max(initial=-1)) + 1, dtype=np.int64)
    _refuse(f"{name} point.object is no row of object", (label < -1) | (label >= len(of_object)), label, of_point)
    there = np.append(of_object, -1)[label]
    _refuse(f"{name} point.object lies in another event", (label >= 0) & (there != of_point), label, of_point)
    return label.astype(np.int64, copy=False), of_object


def _refuse(what: str, bad: NDArray[np.bool_], values: NDArray[Any], events: Ints) -> None:
    if bad.any():
        first = int(bad.argmax())
        raise UserError(f"{what}: {values[first]} (event {events[first]} of the batch, {bad.sum()} in all)")


def _numpy(tensor: Any) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


class VScore(NamedTuple):
    """Homogeneity, completeness and V-measure, each between 0 and 1: numbers, or arrays of shape ``(events,)``."""

    homogeneity: Floats
    completeness: Floats
    v: Floats


def entropy(labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """H(C) = -sum_c (a_c / N) log(a_c / N) in nats, with a_c the number (weight) of points of class c, N of all.

    ``labels``, any integers, and ``weights``, not negative, have shape ``(points,)``. 0 for no points.
    """
    names, weight = _counted(labels, weights=weights)
    return float(_Entropies.of(names, names, weight, np.zeros(len(names), np.int64), 1).classes[0])


def conditional_entropy(labels: ArrayLike, given: ArrayLike, weights: ArrayLike | None = None) -> float:
    """H(C|K) = -sum_ck (a_ck / N) log(a_ck / a_k) in nats: what label C still tells when label K, ``given``, is known.

    a_ck is the number (weight) of points of labels c and k, a_k its sum over c. Shapes as in ``entropy``.
    """
    names, others, weight = _counted(labels, given, weights=weights)
    return float(_Entropies.of(names, others, weight, np.zeros(len(names), np.int64), 1).classes_given_clusters[0])


def v_measure(
    classes: ArrayLike, clusters: ArrayLike, weights: ArrayLike | None = None, *, beta: float = 1.0
) -> VScore:
    """How well ``clusters`` (found) agree with ``classes`` (true), whatever the labels are called.

    h = 1 - H(C|K) / H(C), 1 when H(C) = 0: a cluster holds one class only. c = 1 - H(K|C) / H(K), 1 when H(K) = 0: a
    class lies in one cluster only. V = (1 + beta) h c / (beta h + c), 0 when both are 0. Rosenberg and Hirschberg,
    EMNLP-CoNLL 2007, D07-1043. With ``weights`` every count of points becomes a sum of weights; with equal weights it
    is scikit-learn's ``homogeneity_completeness_v_measure``. Shapes as in ``entropy``; -1 is a label like any other.
    """
    names, others, weight = _counted(classes, clusters, weights=weights)
    return VScore(*(x[0] for x in _v_score(names, others, weight, np.zeros(len(names), np.int64), 1, beta)))


def v_score(
    predicted: Event, truth: Event, *, weighted: bool = True, noise: Noise = "drop", beta: float = 1.0
) -> VScore:
    """The V-measure of predicted tracks against true particles, per event: arrays of shape ``(events,)``.

    ``weighted`` counts points by ``point.weight`` of the truth, else each as 1. ``noise`` says what -1 means:

    - ``drop``: points that the truth calls noise are left out; others without a track are a cluster of their own each.
    - ``own``: all stay; each noise point is a class of its own, each point without a track a cluster of its own.
    - ``label``: all stay; noise is one class, the points without a track are one cluster (the view of scikit-learn).

    Raises ``UserError`` as ``align`` does, for an unknown ``noise`` and when a weight is missing or negative.
    """
    if noise not in get_args(Noise):
        raise UserError(f"noise {noise!r}: expected one of {', '.join(get_args(Noise))}")
    labels = align(predicted, truth)
    if weighted and labels.weight is None:
        raise UserError("weighted V-score: the truth has no column point.weight")
    rest = labels.event if noise == "label" else np.arange(len(labels.event))
    classes = np.where(labels.particle < 0, len(labels.particle_event) + rest, labels.particle)
    clusters = np.where(labels.track < 0, labels.tracks + rest, labels.track)
    weight = np.asarray(labels.weight) if weighted else np.ones(len(classes))
    if noise == "drop":
        weight = np.where(labels.particle < 0, 0.0, weight)
    names, others, event, weight = _counted(classes, clusters, labels.event, weights=weight)
    return _v_score(names, others, weight, event, labels.events, beta)


class _Entropies(NamedTuple):
    classes: Floats
    clusters: Floats
    classes_given_clusters: Floats
    clusters_given_classes: Floats

    @classmethod
    def of(cls, classes: Ints, clusters: Ints, weight: Floats, event: Ints, events: int) -> _Entropies:
        """The entropies of each event, shape ``(events,)``; no label is used in two events, every weight is above 0."""
        c, k = _dense(classes), _dense(clusters)
        _, first, pair = np.unique(c * (k.max(initial=0) + 1) + k, return_index=True, return_inverse=True)
        a_c, a_k = (sums(label, weight, 0) for label in (c, k))
        a_ck = sums(pair, weight, len(first))

        def mean(mass: Floats, share: Floats, of: Ints) -> Floats:
            """-sum mass log share / sum mass of each event."""
            return ratio(-sums(of, xlogy(mass, share), events), sums(of, mass, events), 0.0)

        def whole(mass: Floats, label: Ints) -> Floats:
            of = np.zeros(len(mass), dtype=np.int64)
            of[label] = event
            mass, of = mass[mass > 0], of[mass > 0]
            return mean(mass, mass / sums(of, mass, events)[of], of)  # of one label alone the share is exactly 1

        return cls(
            whole(a_c, c),
            whole(a_k, k),
            mean(a_ck, a_ck / a_k[k[first]], event[first]),
            mean(a_ck, a_ck / a_c[c[first]], event[first]),
        )


def _dense(labels: Ints) -> Ints:
    """The labels themselves if they can number an array of a few times their length, else renumbered."""
    if labels.dtype.kind in "iu" and labels.size and labels.min() >= 0 and labels.max() < 8 * labels.size:
        return labels.astype(np.int64, copy=False)
    return np.unique(labels, return_inverse=True)[1]


def _v_score(classes: Ints, clusters: Ints, weight: Floats, event: Ints, events: int, beta: float) -> VScore:
    h_c, h_k, h_ck, h_kc = _Entropies.of(classes, clusters, weight, event, events)
    homogeneity = np.clip(1 - ratio(h_ck, h_c, 0.0), 0, 1)
    completeness = np.clip(1 - ratio(h_kc, h_k, 0.0), 0, 1)
    v = ratio((1 + beta) * homogeneity * completeness, beta * homogeneity + completeness, 0.0)
    return VScore(homogeneity, completeness, v)


def _counted(*labels: ArrayLike, weights: ArrayLike | None = None) -> list[NDArray[Any]]:
    """The labels and weights of the points that have a weight."""
    arrays = [np.asarray(label) for label in labels]
    weight = np.ones(len(arrays[0])) if weights is None else np.asarray(weights, dtype=np.float64)
    if len({array.shape for array in (*arrays, weight)}) > 1:
        raise ValueError(f"labels and weights differ in shape: {[array.shape for array in (*arrays, weight)]}")
    if not (weight >= 0).all():
        raise UserError(f"weights: expected numbers that are not negative, got {weight[~(weight >= 0)][0]}")
    kept = weight > 0
    return [array[kept] for array in (*arrays, weight)]
