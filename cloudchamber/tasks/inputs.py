"""What goes into the networks of tasks and what comes out of them: meanings and units, for the manifest of exports."""

from __future__ import annotations

from cloudchamber.data.constituents import DISPLACED, ENCODINGS, KINEMATIC, MOMENTUM, OPTIONAL

_BEST = "of the best continuation of the edge {} the origin"
_WAY = {"in": _BEST.format("towards"), "out": _BEST.format("away from")}
#: Input -> column -> meaning, unit.
COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "point": {
        "x": ("position across the beam", "mm"),
        "y": ("position across the beam", "mm"),
        "z": ("position along the beam", "mm"),
        "radius": ("distance from the beam line", "mm"),
        "cos_phi": ("cosine of the azimuth", ""),
        "sin_phi": ("sine of the azimuth", ""),
        "eta": ("pseudorapidity, seen from the origin", ""),
        "tower": ("energy of the points at the same x and y", "GeV"),
        "around": ("energy of the towers within task.tower of this one, itself included", "GeV"),
        "peak": ("tower over the largest of these towers", ""),
        **KINEMATIC,
        **OPTIONAL,
        **DISPLACED,
        **ENCODINGS,
    },
    "polar": {"pt": ("transverse momentum", "GeV"), "deta": KINEMATIC["deta"], "dphi": KINEMATIC["dphi"]},
    "momentum": dict.fromkeys(MOMENTUM, ("component of the four-momentum", "GeV")),
    "edge": {
        "dphi": ("azimuth from the sender to the receiver, in [-pi, pi]", "rad"),
        "dr": ("radius from the sender to the receiver", "mm"),
        "dz": ("z from the sender to the receiver", "mm"),
        "slope": ("dphi / dr, dr taken as 0.001 mm where |dr| is less", "rad/mm"),
        "z0": ("z of the line through both points at the beam line, dr as in slope", "mm"),
        **{f"cost_{way}": (f"misfit {text}: a chi2, 100 for none", "") for way, text in _WAY.items()},
        **{f"curvature_{way}": (f"signed curvature {text}, 0 for none", "1/mm") for way, text in _WAY.items()},
        **{f"impact_{way}": (f"impact parameter {text}, 0 for none", "mm") for way, text in _WAY.items()},
        "ways_in": ("continuations of the edge towards the origin within 3 sigma", ""),
        "ways_out": ("continuations of the edge away from the origin within 3 sigma", ""),
    },
    "object": {
        "chi2": ("chi2 of the helix fit", ""),
        "ndf": ("degrees of freedom of the fit", ""),
        "hits": ("hits of the track", ""),
        "pt": ("transverse momentum", "GeV"),
        "eta": ("|pseudorapidity|", ""),
        "d0": ("|transverse impact parameter|", "mm"),
        "z0": ("|z at the point nearest to the beam line|", "mm"),
        "extent": ("root mean square distance of its points from their mean, in the learned space", ""),
        "core": ("ln(1 + exp(largest logit of beta)), or the distance of its influencers from that mean", ""),
        "joined": ("edges among the hits of the track, per hit", ""),
        "mean_logit": ("|mean logit| of those edges", ""),
        "least_logit": ("|least logit| of those edges", ""),
        "rivals": ("likely edges that leave the track", ""),
        "rival_logit": ("|largest logit| of the edges that leave the track", ""),
        "worst": ("largest chi2 of one hit", ""),
        "score": ("|log likelihood ratio| of the path that was followed", ""),
        "missed": ("layers that it crossed without a hit", ""),
        "pass": ("number of the pass that found it, from 0", ""),
        "begins": ("radius of the innermost hit", "mm"),
        "ends": ("radius of the outermost hit", "mm"),
        "layers": ("layers with a hit", ""),
        "precise": ("hits in layers that measure both coordinates to 0.1 mm", ""),
    },
}
#: Input -> level, meaning.
INPUTS = {
    "point": ("point", "features of the points"),
    "layer": ("point", "detector layer of a point: 100 volume + layer, in TrackML's numbering"),
    "edge": ("edge", "features of the edges"),
    "sender": ("edge", "row of the point where an edge starts, the one nearer to the origin"),
    "receiver": ("edge", "row of the point where an edge ends; edges come in any order, any number of them at a point"),
    "object": ("object", "features of the tracks, at most 1e4, which also stands for what is not a number"),
    "polar": ("point", "momenta of the points, relative to the axis of their jet"),
    "momentum": ("point", "momenta of the points"),
    "slot": ("scene", "rows of the points of an event, each point once in all, -1 where there is none"),
}
OUTPUTS = {
    "edge.logit": "logit of an edge: its probability is 1 / (1 + exp(-logit))",
    "object.logit": "logit of a track: its probability is 1 / (1 + exp(-logit))",
    "scene.logit": "logits of the classes of a jet: softmax gives probabilities; then numbers, scaled as by the task",
    "point.condensate": "of a point the logit of beta and its place in the learned space, or its places as user and as "
    "influencer, in units of the setting task.spread; then the payload, scaled as by the task",
    "point.space": "place of a point in the learned space: points within the radius of the settings are neighbours",
}
