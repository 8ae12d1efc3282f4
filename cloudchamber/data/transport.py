"""ACTS's fast simulation of the generic detector, from particles in memory to hits in memory."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
import pyarrow
from numpy.typing import NDArray

from cloudchamber.errors import UserError

Array: TypeAlias = NDArray[Any]
Table: TypeAlias = dict[str, Array]

POSITION, MOMENTUM = ("tx", "ty", "tz"), ("tpx", "tpy", "tpz")
#: Bits of ``object.id``, from the top; the 64th is the sign and stays 0.
ID_BITS = {"vertexPrimary": 11, "particle": 16, "generation": 12, "subParticle": 12, "vertexSecondary": 12}
INSTALL = "simulation needs pyacts (Linux, glibc >= 2.34) and pythia8mc: pip install 'cloudchamber[simulate]' ({error})"


class Transport:
    """ACTS's fast simulation: what happens to generated particles in the detector.

    Its algorithms are run one by one on a whiteboard of our own, and the tables come back as Arrow: nothing is written
    to disk. Only the momentum of a hit and the parts of a particle's id are in no table and are read one by one.
    """

    def __init__(self, seed: int, momentum_min: float, field_t: float) -> None:
        """``seed`` >= 0; charged particles below ``momentum_min`` (GeV) are dropped; a field of ``field_t`` along z.

        Raises ``UserError`` when pyacts is missing.
        """
        try:
            import acts
            import acts.examples.arrow as arrow
        except ImportError as error:
            raise UserError(INSTALL.format(error=error)) from None
        self.acts, ex, unit, level = acts, acts.examples, acts.UnitConstants, acts.logging.FATAL
        self.momentum_min = momentum_min
        self.geometry = ex.GenericDetector(logLevel=level)  # must outlive the algorithms
        # A seed the size of a hash: or else event 0 of one seed would be event 1 of another.
        hashed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 2)
        fatras = ex.FatrasSimulation(
            level=level,
            inputParticles="generated",
            outputParticles="particles",
            outputSimHits="hits",
            randomNumbers=ex.RandomNumbers(seed=hashed),
            trackingGeometry=self.geometry.trackingGeometry(),
            magneticField=acts.ConstantBField(acts.Vector3(0, 0, field_t * unit.T)),
            generateHitsOnSensitive=True,
            emScattering=True,
            emEnergyLossIonisation=True,
            emEnergyLossRadiation=True,
            emPhotonConversion=True,
            pMin=momentum_min * unit.GeV,
        )
        names = {"level": level, "inputParticles": "particles"}
        to_hits = arrow.ArrowSimHitOutputConverter(**names, inputSimHits="hits", outputTable="hit table")
        to_particles = arrow.ArrowParticleOutputConverter(**names, outputTable="particle table")
        self.algorithms = (fatras, to_hits, to_particles)
        self.owner = ex.IAlgorithm("collisions", level)
        self.put = self._handle(ex.WriteDataHandle, ex.SimParticleContainer, "generated")
        self.hits = self._handle(ex.ReadDataHandle, ex.SimHitContainer, "hits")
        self.particles = self._handle(ex.ReadDataHandle, ex.SimParticleContainer, "particles")
        self.hit_table = self._handle(ex.ReadDataHandle, acts.arrow.ArrowTable, "hit table")
        self.particle_table = self._handle(ex.ReadDataHandle, acts.arrow.ArrowTable, "particle table")

    def _handle(self, access: Any, kind: Any, key: str) -> Any:
        handle = access(self.owner, kind, key)
        handle.initialize(key)
        return handle

    def run(self, generated: Table, number: int) -> tuple[Table, Table]:
        """Hits and charged particles of event ``number``; ``object`` of a hit is a row of the particles.

        ``x0`` of a particle is what it crossed, in radiation lengths, ``time`` of a hit in mm/c.
        """
        return self.tables(*self.context(generated, number))

    def tables(self, board: Any, context: Any) -> tuple[Table, Table]:
        """Simulate the particles on the ``board``; as ``run``."""
        for algorithm in self.algorithms:
            if algorithm.internalExecute(context) != self.acts.examples.ProcessCode.SUCCESS:
                raise RuntimeError(f"ACTS: {algorithm.name()} failed in event {context.eventNumber}")
        hit, particle = _columns(self.hit_table(board)), _columns(self.particle_table(board))
        code, charged = attrgetter(*ID_BITS), particle["charge"] != 0
        particles = list(self.particles(board))
        codes = np.array([code(one.particleId) for one in particles], np.int64).reshape(-1, len(ID_BITS))[charged]
        table = {"id": pack(dict(zip(ID_BITS, codes.T, strict=True)))}
        table |= {"pdg": particle["pdg_id"][charged].astype(np.int64)}
        table |= {"x0": np.array([one.pathInX0 for one in particles])[charged]}
        table |= {name: particle[name][charged] for name in ("vx", "vy", "vz", "px", "py", "pz", "charge")}
        momentum: list[float] = []
        for one in self.hits(board):
            four = one.momentum4Before
            momentum += (four[0], four[1], four[2])
        hits = {name: hit[f"true_{name[1]}"] for name in POSITION}
        hits |= dict(zip(MOMENTUM, np.array(momentum).reshape(-1, 3).T, strict=True))
        hits |= {name: hit[f"{name}_id"].astype(np.int64) for name in ("volume", "layer", "surface")}
        hits["object"] = (np.cumsum(charged) - 1)[hit["particle_id"].astype(np.int64)]
        return hits | {"time": hit["time"]}, table

    def context(self, generated: Table, number: int) -> tuple[Any, Any]:
        """A whiteboard with the generated particles on it, and the context of event ``number`` around it."""
        ex = self.acts.examples
        board = ex.WhiteBoard(self.acts.logging.FATAL)
        context = ex.AlgorithmContext(0, number, board, 0)
        self.put(context, self._container(generated))
        return board, context

    def _container(self, table: Table) -> Any:
        acts, unit = self.acts, self.acts.UnitConstants
        names = ["vertexPrimary", "vertexSecondary", "particle", "pdg", "charge", "m"]
        names += ["vx", "vy", "vz", "vt", "px", "py", "pz"]
        container = acts.examples.SimParticleContainer()
        rows = zip(*(table.get(name, np.zeros(0)).tolist() for name in names), strict=True)
        for pv, sv, nth, pdg, charge, mass, x, y, z, t, px, py, pz in rows:
            code = acts.examples.SimBarcode()
            code.vertexPrimary, code.vertexSecondary, code.particle = pv, sv, nth
            particle = acts.examples.SimParticle(code, acts.PdgParticle(pdg), charge * unit.e, mass * unit.GeV)
            particle.fourPosition = acts.Vector4(x, y, z, t)  # ACTS counts time in mm as Pythia does
            particle.direction = acts.Vector3(px, py, pz)
            particle.absoluteMomentum = (px * px + py * py + pz * pz) ** 0.5 * unit.GeV
            container.insert(particle)
        return container


def _columns(handle: Any) -> Table:
    """The one row of lists of an ACTS table as numpy columns; columns that may be null are left out."""
    table = pyarrow.table(handle.as_table())
    lists = {name: table[name].chunk(0).values for name in table.column_names}
    return {name: values.to_numpy(zero_copy_only=False) for name, values in lists.items() if not values.null_count}


def pack(code: Table) -> Array:
    """The numbers named in ``ID_BITS``, a column each, to one int64: ``object.id``."""
    packed = np.zeros_like(code["particle"])
    for name, bits in ID_BITS.items():
        if len(packed) and code[name].max() >> bits:
            raise ValueError(f"collisions: {name} {code[name].max()} does not fit into {bits} bits of a particle's id")
        packed = packed << bits | code[name]
    return packed


def unpack(packed: Array) -> Table:
    """The inverse of ``pack``."""
    code: Table = {}
    for name, bits in reversed(ID_BITS.items()):
        code[name], packed = packed & ((1 << bits) - 1), packed >> bits
    return code


def count_up(group: Array) -> Array:
    """0, 1, 2, ... within each group, in the order of the rows."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-2))
    count = np.empty(len(group), dtype=np.int64)
    count[order] = np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))
    return count
