"""A sampling calorimeter and single showers in it, by Geant4.

Its absorber and silicon are those of data sets 2 and 3 of the CaloChallenge (arXiv:2410.21611), 90 gaps of 1.4 mm
tungsten and 0.3 mm silicon; it is flat, with square cells, and reads out three gaps as a layer. Geant4: Agostinelli et
al., Nucl. Instrum. Meth. A 506 (2003) 250.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudchamber.data import geant4data
from cloudchamber.errors import UserError

Table = dict[str, NDArray[Any]]

#: mm: absorber and silicon of a gap, the pitch of the layers, the side of a cell, half the width of what is simulated.
TUNGSTEN, SILICON, CELL, HALF = 1.4, 0.3, 5.0, 400.0
GAPS, GAPS_PER_LAYER = 90, 3
LAYERS, PITCH = GAPS // GAPS_PER_LAYER, GAPS_PER_LAYER * (TUNGSTEN + SILICON)
#: mm behind the front face: near the maximum of showers; their position is where their axis crosses this plane.
DEPTH = 30.0
#: Deposits times this are energies at the electromagnetic scale: the inverse of the sampling fraction.
SCALE = 1 / 0.0318
#: Radiation length and Moliere radius of the whole, mm, by the rules for mixtures of the PDG (Prog. Theor. Exp. Phys.
#: 2022 083C01, eqs. 34.25 and 34.38) with X0 = 6.76, 21.82 g/cm^2 and Ec = 7.97, 40.19 MeV of tungsten and silicon.
X0, MOLIERE = 4.22, 10.9
#: Geant4 loses no particle whose range is above this, mm.
CUT = 0.7
#: What else Geant4 asks for; nothing of it is used here.
UNUSED = ["ENSDFSTATE", "NEUTRONHP", "LEVELGAMMA", "RADIOACTIVE", "PARTICLEXS", "PII", "REALSURFACE", "SAIDXS", "ABLA"]
UNUSED += ["INCL", "CHANNELING", "PARTICLEHP"]
#: So often Geant4 is asked for a shower.
TRIES = 3
PARTICLES = {11: "e-", -11: "e+", 22: "gamma"}


class Simulator:
    """Geant4 with the calorimeter, in a process of its own that ends with this object.

    Not in this one: Geant4 prints past Python, cannot be ended without a crash, and does not always start beside torch.
    """

    def __init__(self) -> None:
        for package in ("geant4_pybind", "xraylib"):
            if importlib.util.find_spec(package) is None:
                raise UserError(geant4data.INSTALL.format(error=f"no {package}"))
        self._start()

    def _start(self) -> None:
        data = TemporaryDirectory(prefix="geant4-")
        geant4data.write(Path(data.name), (1, 14, 74))
        names = ("GEANT4_DATA_DIR", "G4LEDATA", *(f"G4{name}DATA" for name in UNUSED))
        plan = {"tungsten": TUNGSTEN, "silicon": SILICON, "half": HALF, "gaps": GAPS, "cut": CUT}
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("geant4run.py")), json.dumps(plan)],
            env=os.environ | dict.fromkeys(names, data.name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.stop = weakref.finalize(self, _stop, self.process, data)
        with suppress(EOFError):  # that it has ended is found when it is asked for more
            self._ask((PARTICLES[11], 0.1, (0.0, 0.0, -1.0), (0.0, 0.0, 1.0), 0))  # reads the data: nothing is left
            data.cleanup()  # if this process is killed

    def _ask(self, wanted: tuple[Any, ...]) -> NDArray[Any]:
        """The deposits of a particle, rows of x, y, z (mm) and MeV. Raises ``EOFError`` where Geant4 has ended."""
        to, back = self.process.stdin, self.process.stdout
        assert to is not None
        assert back is not None
        with suppress(BrokenPipeError):  # it has ended, as the next line finds
            pickle.dump(wanted, to)
            to.flush()
        return np.array(pickle.load(back)).reshape(-1, 4)

    def shower(self, pdg: int, energy: float, place: NDArray[Any], slope: NDArray[Any], seed: int) -> Table:
        """The deposits of one particle: ``pdg`` of ``PARTICLES``, ``energy`` in GeV, the same for the same seed.

        Its axis crosses the plane at ``DEPTH`` at ``place`` = (x, y) mm from the centre of a cell, in the direction
        (``slope``, 1). Columns ``ix``, ``iy`` (int64, cells from that one), ``layer`` (int64), ``energy`` (float32,
        GeV, at the electromagnetic scale), one row per cell with a deposit. Geant4 crashes now and then: it is started
        anew. Raises ``UserError`` when it ends each of ``TRIES`` times.
        """
        start = place - slope * (DEPTH + 1.0)
        wanted = (PARTICLES[pdg], energy, (*start.tolist(), -1.0), (*slope.tolist(), 1.0), seed)
        for left in reversed(range(TRIES)):
            try:
                return _cells(self._ask(wanted))
            except (EOFError, pickle.UnpicklingError):  # ended, perhaps while it wrote
                status = self.process.wait()
            if left:
                self.stop()
                self._start()
        raise UserError(f"Geant4 ended {TRIES} times in a row, at last with status {status}")


def _stop(process: subprocess.Popen[bytes], data: TemporaryDirectory[str]) -> None:
    process.kill()
    process.communicate()
    data.cleanup()


def _cells(deposits: NDArray[Any]) -> Table:
    """Deposits, rows of x, y, z (mm) and MeV, summed up by cell."""
    index = np.stack([deposits[:, 2] // PITCH, *np.rint(deposits[:, :2].T / CELL)], axis=1).astype(np.int64)
    cells, which = np.unique(index, axis=0, return_inverse=True)
    energy = np.bincount(which.ravel(), deposits[:, 3], minlength=len(cells)) * SCALE / 1e3
    return dict(zip(("layer", "ix", "iy"), cells.T.copy(), strict=True)) | {"energy": energy.astype(np.float32)}
