"""The stage of a cartoon: three flat tones, outlines, one mitten, and a fixed camera, low down.

It has nothing of `Stage` but how things move: no light falls off, nothing shines or has a shadow,
and there is no table, but a plain colour, a floor and a wall, or noise.
"""

import math

import numpy as np
import vtk
from vtk.util import numpy_support

from benchmarks.films import shapes
from benchmarks.films.script import Script
from benchmarks.films.stage import SAMPLES, SKINS, Stage
from data_prep.products.product import Product
from data_prep.rendering.mesh import Mesh

TONES = np.array([0.5, 0.75, 1.0])  # of a face's colour: away from the light, across it, to it
STEPS = (0.0, 0.6)  # cosines between them
LOWEST, HIGHEST = math.radians(10), math.radians(45)  # elevations
WORKER = math.radians(40)  # no camera stands where the worker does, at azimuth 0
INK, JUMP = (15, 15, 20), 55  # of outlines: colour, and the difference of two samples from which on
NOTHING = (255, 0, 255)  # what VTK shows where nothing is


class Cartoon(Stage):
    """See `Stage`."""

    def __init__(self, product: Product, size: int, rng: np.random.Generator):
        self._up = rng.uniform(LOWEST, HIGHEST)
        self._around = rng.uniform(WORKER, 2 * math.pi - WORKER)
        self._far = rng.uniform(0.9, 1.3)
        self._sway = rng.choice([0, 0, 0.5])
        light = np.array([0, 0, 1.2]) + rng.normal(0, 0.6, 3)
        self._to_light = light / np.linalg.norm(light)
        self._behind = backdrop(SAMPLES * size, rng)
        self._shaded: list[tuple[vtk.vtkActor, vtk.vtkPolyData, np.ndarray, np.ndarray]] = []
        super().__init__(product, size, rng)
        self._renderer.SetBackground(*np.divide(NOTHING, 255))

    def _table(self, rng: np.random.Generator) -> list[vtk.vtkActor]:
        return []

    def _clutter(self, rng: np.random.Generator) -> list[vtk.vtkActor]:
        return []

    def _light(self, rng: np.random.Generator) -> None:
        self._shadowed = None

    def _piece(self, mesh: Mesh, rng: np.random.Generator) -> vtk.vtkActor:
        data = shapes.surface(mesh)
        actor = shapes.actor(data, None, 0, 1)
        actor.GetProperty().LightingOff()
        a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
        normals = np.cross(b - a, c - a)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        self._shaded.append((actor, data, normals, shapes.shown(mesh.colours)))
        return actor

    def _lay_out(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Where parts wait: to the left and the right, as the camera sees it, and none before."""
        poses = []
        for k, part in enumerate(self._parts):
            around = self._around + (1 - 2 * (k % 2)) * math.radians(rng.uniform(75, 150))
            far = self._radius + rng.uniform(0.9, 1.3)
            at = (far * math.sin(around), -far * math.cos(around), part.height / 2)
            poses.append(shapes.turn(rng.uniform(-math.pi, math.pi), at))
        return poses

    def _draw_hands(self, rng: np.random.Generator) -> list[list[vtk.vtkActor]]:
        mitten = shapes.tube([(0, 0.75, -0.1), (0, 0.3, 0), (0, -0.5, 0.1)], (0.28, 0.46, 0.3))
        thumb = shapes.tube([(-0.2, -0.1, 0), (-0.6, 0.3, -0.2)], (0.18, 0.13))
        arm = shapes.tube([(0, -0.5, 0.1), (0, -8, 3.6)], (0.34, 0.6))
        skin = SKINS[rng.integers(len(SKINS))]
        drawn = [(mitten, skin), (thumb, skin), (arm, rng.uniform(0.05, 0.95, 3))]
        hand = [shapes.actor(data, colour, 0, 1) for data, colour in drawn]
        for actor in hand:
            actor.GetProperty().LightingOff()
        return [hand]

    def set(self, state: np.ndarray, script: Script, i: int) -> None:
        """See `Stage`; gives each face its tone."""
        super().set(state, script, i)
        for actor, data, normals, colours in self._shaded:
            cosines = normals @ (shapes.turned(actor.GetUserMatrix()).T @ self._to_light)
            toned = colours * TONES[np.searchsorted(STEPS, cosines)][:, None]
            scalars = numpy_support.numpy_to_vtk(toned.astype(np.uint8), deep=True)
            data.GetCellData().SetScalars(scalars)

    def _set_camera(self, script: Script, i: int) -> None:
        up = self._up + self._sway * (script.elevation[i] - script.elevation[0])
        around = self._around + self._sway * (script.azimuth[i] - script.azimuth[0])
        target = np.array([0, 0, 0.45 * self._top])
        self._look(max(up, LOWEST), around, self._far, 0.0, target)

    def picture(self) -> np.ndarray:
        """(S, S, 3) float in 0..1."""
        seen = self._read()
        edges = np.zeros(seen.shape[:2], bool)
        for along in (edges, edges.T):
            samples = seen if along is edges else seen.transpose(1, 0, 2)
            jumps = np.abs(np.diff(samples.astype(int), axis=0)).max(-1) > JUMP
            along[1:] |= jumps
            along[:-1] |= jumps
        nothing = (seen == NOTHING).all(-1)
        drawn = np.where(nothing[..., None], self._behind, seen)
        return self._mean(np.where(edges[..., None], INK, drawn))


def backdrop(side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side, 3) in 0..255: a plain colour, a floor and a wall, or coarse noise."""
    kind, base = rng.integers(3), rng.uniform(40, 220, 3)
    picture = np.tile(base, (side, side, 1))
    if kind == 1:
        picture[: round(rng.uniform(0.15, 0.5) * side)] = rng.uniform(40, 220, 3)
    elif kind == 2:
        cells = rng.normal(0, rng.uniform(15, 45), (side // 4, side // 4, rng.choice([1, 3])))
        picture += cells.repeat(4, 0).repeat(4, 1)
    return picture.clip(0, 255)
