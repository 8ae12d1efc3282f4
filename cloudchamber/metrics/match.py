"""Tracks against particles: efficiency, purity, fakes, duplicates and the TrackML score.

One ``Match`` holds what predicted tracks and true particles share; every rate is a count on it:

    match = Match.of(predicted, truth)
    selection = Selection(pt_min=1.0, eta_max=4.0)
    efficiency(match, "double", particles=selection.particles(match, truth), tracks=selection.tracks(match))

A track shares ``shared`` hits with its *majority particle*, the particle that most of its hits belong to (see
``Match.majority``); f_truth = shared / hits of the track (noise included), f_reco = shared / hits of the particle. The
hits of a particle are those present in the truth event, so a sector of the detector is judged by its own hits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from cloudchamber import physics
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics.cluster import align, column
from cloudchamber.metrics.fraction import Floats, Fraction, Ints, Mask, ratio, sums

Chosen = Mask | None
Values = ArrayLike | None


@dataclass(frozen=True, kw_only=True)
class Match:
    """The sparse table of hits that tracks and particles share, for one event or a batch.

    ``track``, ``particle``, ``shared`` and ``weight``, shape ``(pairs,)``: the pairs that share hits, how many, and the
    sum of their weights (None when the truth has no ``point.weight``). ``track_hits``, ``(tracks,)``: all hits of a
    track, noise included. ``particle_hits`` and ``particle_weight``, ``(particles,)``: all hits of a particle in the
    truth. ``particle_event``, ``(particles,)``, and ``events``: the event of each particle and how many there are.
    """

    track: Ints
    particle: Ints
    shared: Ints
    weight: Floats | None
    track_hits: Ints
    particle_hits: Ints
    particle_weight: Floats | None
    particle_event: Ints
    events: int

    @classmethod
    def of(cls, predicted: Event, truth: Event) -> Match:
        """Compare the ``point.object`` of a prediction with that of the truth; both carry ``point.id``.

        Raises ``UserError`` as ``align`` does.
        """
        labels = align(predicted, truth)
        number = len(labels.particle_event)
        noise, track, particle = labels.particle < 0, labels.track, labels.particle
        both = (track >= 0) & ~noise
        key, pair, shared = np.unique(
            track[both] * max(number, 1) + particle[both], return_inverse=True, return_counts=True
        )
        weight, particle_weight = None, None
        if labels.weight is not None:
            weight = sums(pair, labels.weight[both], len(key))
            particle_weight = sums(particle[~noise], labels.weight[~noise], number)
        return cls(
            track=key // max(number, 1),
            particle=key % max(number, 1),
            shared=shared,
            weight=weight,
            track_hits=np.bincount(track[track >= 0], minlength=labels.tracks),
            particle_hits=np.bincount(particle[~noise], minlength=number),
            particle_weight=particle_weight,
            particle_event=labels.particle_event,
            events=labels.events,
        )

    @cached_property
    def majority_pair(self) -> Ints:
        """The row among the pairs of each track with its majority particle, ``(tracks,)``; -1 for a track of noise."""
        order = np.lexsort((self.particle, self.particle_hits[self.particle], -self.shared, self.track))
        track = self.track[order]
        first = np.append(True, track[1:] != track[:-1])[: len(track)]
        pair = np.full(len(self.track_hits), -1)
        pair[track[first]] = order[first]
        return pair

    @cached_property
    def majority(self) -> Ints:
        """The particle that shares most hits with each track, shape ``(tracks,)``; -1 for a track of noise only.

        Of particles that share equally many hits, the one with fewer hits (larger f_reco), then the one in the lower
        row. So a track has at most one majority particle and matches at most one particle.
        """
        return np.append(self.particle, -1)[self.majority_pair]

    @cached_property
    def majority_shared(self) -> Ints:
        """The hits that each track shares with its majority particle, shape ``(tracks,)``; 0 for a track of noise."""
        return np.append(self.shared, 0)[self.majority_pair]

    def of_majority(self, values: ArrayLike) -> Floats:
        """A value per particle, such as its pT, taken to its tracks, shape ``(tracks,)``; NaN for a track of noise."""
        return np.append(np.asarray(values, dtype=np.float64), np.nan)[self.majority]


def _standard(shared: Ints, track_hits: Ints, particle_hits: Ints) -> Mask:
    return 2 * shared >= track_hits


def _double(shared: Ints, track_hits: Ints, particle_hits: Ints) -> Mask:
    majority: Mask = 2 * shared > np.maximum(track_hits, particle_hits)
    return majority


def _strict(shared: Ints, track_hits: Ints, particle_hits: Ints) -> Mask:
    every: Mask = (shared == track_hits) & (shared == particle_hits)
    return every


#: When does a track match its majority particle? Name -> function of the hits shared, of the track, of the particle.
#:
#: - ``standard``, single majority: f_truth >= 1/2. Several tracks may match one particle. Style "ATLAS" of the GNN4ITk
#:   and acorn evaluation, which adds 1e-6 to its 0.5 and so leaves out tracks of exactly half; its "one_way" uses this
#:   for tracks, but calls a particle found by f_reco alone, and is not offered.
#: - ``double``, double majority: f_truth > 1/2 and f_reco > 1/2. At most one track matches a particle. The TrackML
#:   contest (Amrouche et al., arXiv:1904.06778), Exa.TrkX, and "two_way" of acorn.
#: - ``strict``, perfect: f_truth = 1 and f_reco = 1, all and only the hits of the particle (Lieret et al.,
#:   arXiv:2312.03823, call it perfect).
STYLES: dict[str, Callable[[Ints, Ints, Ints], Mask]] = {"standard": _standard, "double": _double, "strict": _strict}


def matched(match: Match, style: str = "double") -> Mask:
    """Which tracks match their majority particle, any true particle counts, shape ``(tracks,)``; see ``STYLES``.

    Raises ``UserError`` for an unknown style.
    """
    if style not in STYLES:
        raise UserError(f"matching style {style!r}: expected one of {', '.join(STYLES)}")
    particle_hits = np.append(match.particle_hits, 0)[match.majority]
    return STYLES[style](match.majority_shared, match.track_hits, particle_hits) & (match.majority >= 0)


def efficiency(
    match: Match,
    style: str = "double",
    *,
    particles: Chosen = None,
    tracks: Chosen = None,
    values: Values = None,
    bins: Values = None,
) -> Fraction:
    """Particles that a track matches, out of the selected particles.

    ``particles``, shape ``(particles,)``, selects particles (default: those with a hit); ``tracks``, ``(tracks,)``, the
    tracks that may match (default: those with a hit). ``values``, ``(particles,)``, and ``bins``: see ``Fraction.of``.
    """
    chosen = match.particle_hits > 0 if particles is None else particles
    found = np.zeros(len(match.particle_hits), dtype=bool)
    found[match.majority[matched(match, style) & _kept(match, tracks)]] = True
    return Fraction.of(found[chosen], None if values is None else np.asarray(values)[chosen], bins)


def purity(
    match: Match, style: str = "double", *, tracks: Chosen = None, values: Values = None, bins: Values = None
) -> Fraction:
    """Tracks that match any true particle, out of the selected tracks.

    Any particle, not only a selected one: a track of a particle of low pT is no fake. ``tracks`` and ``values``, shape
    ``(tracks,)``: as in ``efficiency``, per track: its reconstructed pT, or ``match.of_majority`` of the true one.
    """
    kept = _kept(match, tracks)
    return Fraction.of(matched(match, style)[kept], None if values is None else np.asarray(values)[kept], bins)


def fake_rate(
    match: Match, style: str = "double", *, tracks: Chosen = None, values: Values = None, bins: Values = None
) -> Fraction:
    """Tracks that match no true particle, out of the selected tracks: 1 - ``purity``, same arguments."""
    return purity(match, style, tracks=tracks, values=values, bins=bins).complement()


def duplicate_rate(
    match: Match, style: str = "double", *, tracks: Chosen = None, values: Values = None, bins: Values = None
) -> Fraction:
    """Matched tracks beyond the first of their particle, out of the selected tracks; arguments as in ``purity``.

    The first is the one that shares most hits; of equals, the one in the lower row. Zero by definition for the styles
    ``double`` and ``strict``, where one track at most matches a particle.
    """
    kept = _kept(match, tracks)
    rows = np.flatnonzero(kept & matched(match, style))
    rows = rows[np.lexsort((-match.majority_shared[rows], match.majority[rows]))]
    particle = match.majority[rows]
    duplicate = np.zeros(len(kept), dtype=bool)
    duplicate[rows[1:]] = particle[1:] == particle[:-1]
    return Fraction.of(duplicate[kept], None if values is None else np.asarray(values)[kept], bins)


def trackml_score(match: Match, particles: Chosen = None) -> Floats:
    """The TrackML score of each event, shape ``(events,)``; the contest averages it over events.

    The weights of the hits that tracks share with their majority particle, summed over the tracks that match by double
    majority, over the weights of all hits of particles. Every track counts, however short. Noise has no particle and
    counts nowhere (its weight is 0 in the contest). Amrouche et al., arXiv:1904.06778, phase 1.

    ``particles``, shape ``(particles,)``: only the hits of these enter, above and below (phase 2: primary particles).
    NaN for an event without weight. Raises ``UserError`` when the truth has no ``point.weight``.
    """
    if match.weight is None or match.particle_weight is None:
        raise UserError("TrackML score: the truth has no column point.weight")
    weights = match.particle_weight if particles is None else np.where(particles, match.particle_weight, 0.0)
    good = matched(match, "double")
    particle = match.majority[good]
    found = match.weight[match.majority_pair[good]]
    if particles is not None:
        found = np.where(particles[particle], found, 0.0)
    above = sums(match.particle_event[particle], found, match.events)
    return ratio(above, sums(match.particle_event, weights, match.events), np.nan)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which particles and tracks enter the rates; the defaults cut on nothing but the number of hits.

    A particle is selected when ``pt_min <= pT < pt_max`` (GeV), ``|eta| < eta_max``, it is produced near the beam line,
    ``hypot(vx, vy) < radius_max`` (mm), has at least ``min_hits`` hits in the event, and is charged if ``charged``. A
    track needs ``min_track_hits`` hits: shorter ones are dropped before every rate, not before the TrackML score. A cut
    at its default asks for no column; a value that is NaN fails a cut.
    """

    pt_min: float = 0.0
    pt_max: float = np.inf
    eta_max: float = np.inf
    radius_max: float = np.inf
    min_hits: int = 3
    min_track_hits: int = 3
    charged: bool = False

    def particles(self, match: Match, truth: Event) -> Mask:
        """The mask of selected particles, shape ``(particles,)``. Raises ``UserError`` when a column is missing."""
        mask: Mask = match.particle_hits >= self.min_hits
        if self._cuts_pt:
            mask &= self._in_pt(physics.pt(*(column(truth, "object", p) for p in ("px", "py"))))
        if np.isfinite(self.eta_max):
            mask &= self._in_eta(physics.eta(*(column(truth, "object", p) for p in ("px", "py", "pz"))))
        if np.isfinite(self.radius_max):
            mask &= np.hypot(column(truth, "object", "vx"), column(truth, "object", "vy")) < self.radius_max
        if self.charged:
            mask &= column(truth, "object", "charge") != 0
        return mask

    def tracks(self, match: Match, predicted: Event | None = None) -> Mask:
        """The mask of tracks with enough hits and, given the prediction, reconstructed pT and eta in the selection.

        Shape ``(tracks,)``. With the prediction for ``purity``, ``fake_rate``, ``duplicate_rate`` of a region; without
        for ``efficiency``. Raises ``UserError`` when a cut needs ``object.pt`` or ``object.eta`` and it is missing.
        """
        mask: Mask = match.track_hits >= max(self.min_track_hits, 1)
        if predicted is not None and self._cuts_pt:
            mask &= self._in_pt(column(predicted, "object", "pt"))
        if predicted is not None and np.isfinite(self.eta_max):
            mask &= self._in_eta(column(predicted, "object", "eta"))
        return mask

    @property
    def _cuts_pt(self) -> bool:
        return self.pt_min > 0 or np.isfinite(self.pt_max)

    def _in_pt(self, pt: Floats) -> Mask:
        return (pt >= self.pt_min) & (pt < self.pt_max)

    def _in_eta(self, eta: Floats) -> Mask:
        return np.abs(eta) < self.eta_max


def _kept(match: Match, tracks: Chosen) -> Mask:
    """The selected tracks; a row without hits is no track."""
    return match.track_hits > 0 if tracks is None else (match.track_hits > 0) & tracks
