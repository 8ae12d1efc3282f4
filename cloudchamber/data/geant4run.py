"""Geant4 as a program of its own, run by ``sampling.Simulator``: particles come in and deposits go out, pickled."""

import json
import os
import pickle
import sys
from typing import Any

import geant4_pybind as g4

plan = json.loads(sys.argv[1])
deposits: list[tuple[float, float, float, float]] = []
guns: list[Any] = []


class Sensor(g4.G4VSensitiveDetector):  # type: ignore[misc]
    def ProcessHits(self, step: Any, history: Any) -> bool:
        deposit = step.GetTotalEnergyDeposit()
        if deposit <= 0:
            return False
        before, after = step.GetPreStepPoint().GetPosition(), step.GetPostStepPoint().GetPosition()
        places = ((a + b) / 2 for a, b in ((before.x, after.x), (before.y, after.y), (before.z, after.z)))
        deposits.append((*places, deposit))
        return True


class Detector(g4.G4VUserDetectorConstruction):  # type: ignore[misc]
    def Construct(self) -> Any:
        material = g4.G4NistManager.Instance().FindOrBuildMaterial
        depth = plan["gaps"] * (plan["tungsten"] + plan["silicon"])
        world = g4.G4Box("world", plan["half"], plan["half"], depth + 10)
        inside = g4.G4LogicalVolume(world, material("G4_Galactic"), "world")
        placed = g4.G4PVPlacement(None, g4.G4ThreeVector(), inside, "world", None, False, 0, False)
        self.kept = [world, inside, placed]
        for name, thickness, start in (("G4_W", plan["tungsten"], 0.0), ("G4_Si", plan["silicon"], plan["tungsten"])):
            box = g4.G4Box(name, plan["half"], plan["half"], thickness / 2)
            volume = g4.G4LogicalVolume(box, material(name), name)
            self.kept += [box, volume]
            for gap in range(plan["gaps"]):
                centre = g4.G4ThreeVector(0, 0, gap * (plan["tungsten"] + plan["silicon"]) + start + thickness / 2)
                self.kept.append(g4.G4PVPlacement(None, centre, volume, name, inside, False, gap, False))
        return placed

    def ConstructSDandField(self) -> None:
        self.sensor = Sensor("silicon")
        g4.G4SDManager.GetSDMpointer().AddNewDetector(self.sensor)
        self.SetSensitiveDetector("G4_Si", self.sensor, True)


class Physics(g4.G4VModularPhysicsList):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.RegisterPhysics(g4.G4EmStandardPhysics())

    def SetCuts(self) -> None:
        self.SetDefaultCutValue(plan["cut"])
        self.SetCutsWithDefault()


class Gun(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.gun = g4.G4ParticleGun(1)
        guns.append(self.gun)

    def GeneratePrimaries(self, event: Any) -> None:
        self.gun.GeneratePrimaryVertex(event)


class Actions(g4.G4VUserActionInitialization):  # type: ignore[misc]
    def Build(self) -> None:
        self.SetUserAction(Gun())


def main() -> None:
    """Simulate particles until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Geant4 prints
    manager = g4.G4RunManagerFactory.CreateRunManager(g4.G4RunManagerType.Serial)
    parts = Detector(), Physics(), Actions()
    for part in parts:
        manager.SetUserInitialization(part)
    command = g4.G4UImanager.GetUIpointer().ApplyCommand
    for verbose in ("/process/verbose", "/process/em/verbose", "/run/verbose"):
        command(f"{verbose} 0")
    manager.Initialize()
    gun = guns[-1]
    while True:
        try:
            particle, energy, place, direction, seed = pickle.load(sys.stdin.buffer)
        except EOFError:
            os._exit(0)  # Geant4's end would crash
        gun.SetParticleDefinition(g4.G4ParticleTable.GetParticleTable().FindParticle(particle))
        gun.SetParticlePosition(g4.G4ThreeVector(*place))
        gun.SetParticleMomentumDirection(g4.G4ThreeVector(*direction).unit())
        gun.SetParticleEnergy(energy * g4.GeV)
        deposits.clear()
        command(f"/random/setSeeds {seed % 2**31 + 1} {seed // 2**31 + 1}")
        manager.BeamOn(1)
        pickle.dump(deposits, answers)
        answers.flush()


if __name__ == "__main__":
    main()
