"""The stage of a film: all that can be seen, the light and the camera, drawn by VTK."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import vtk
from vtk.util import numpy_support

from benchmarks.films import shapes
from benchmarks.films.script import Script
from data_prep.products.product import Product
from data_prep.rendering.mesh import Mesh

SAMPLES = 2  # each way, of a pixel
BOX_VISIBLE = 0.9  # as in the real data sets: no box where hands hide more than a tenth
GLOSS, GLOSS_POWER = (0.05, 0.5), (8, 60)
SKINS = ((0.93, 0.76, 0.65), (0.78, 0.58, 0.45), (0.55, 0.38, 0.28), (0.36, 0.25, 0.2))


class Stage:
    """The table with all that lies on it, and the camera."""

    def __init__(self, product: Product, size: int, rng: np.random.Generator):
        self._parts = product.parts
        vertices = product.mesh(np.ones(len(product.parts))).vertices
        self._radius = float(np.linalg.norm(np.abs(vertices[:, :2]).max(0)))
        self._top = float(vertices[:, 2].max())
        self._renderer, self._window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.SetSize(SAMPLES * size, SAMPLES * size)
        self._window.AddRenderer(self._renderer)
        self._size = size
        self._renderer.SetBackground(*rng.uniform(0.2, 0.6, 3))
        self._others = self._table(rng)
        self._pieces = [self._piece(part.mesh, rng) for part in product.parts]
        # Lies on the table; meshes of CAD have none.
        self._board = self._piece(product.board, rng) if len(product.board.faces) else None
        self._trays = self._lay_out(rng)
        self._others += self._clutter(rng)
        self._hands = self._draw_hands(rng)
        everything = [*self._others, *self._pieces, *(a for pair in self._hands for a in pair)]
        everything += [self._board] if self._board else []
        for actor in everything:
            self._renderer.AddActor(actor)
        self._light(rng)
        self._reader = vtk.vtkWindowToImageFilter()
        self._reader.SetInput(self._window)
        self._reader.ReadFrontBufferOff()

    def _piece(self, mesh: Mesh, rng: np.random.Generator) -> vtk.vtkActor:
        return shapes.actor(
            shapes.polydata(mesh), None, rng.uniform(*GLOSS), rng.uniform(*GLOSS_POWER)
        )

    def _table(self, rng: np.random.Generator) -> list[vtk.vtkActor]:
        plane = vtk.vtkPlaneSource()
        plane.SetOrigin(-30, -30, -0.01)
        plane.SetPoint1(30, -30, -0.01)
        plane.SetPoint2(-30, 30, -0.01)
        plane.Update()
        data = plane.GetOutput()
        around = numpy_support.vtk_to_numpy(data.GetPointData().GetTCoords()) * rng.uniform(6, 14)
        data.GetPointData().SetTCoords(numpy_support.numpy_to_vtk(around, deep=True))
        actor = shapes.actor(data, (1, 1, 1), rng.uniform(0, 0.25), 20)
        actor.SetTexture(shapes.texture(rng))
        return [actor]

    def _lay_out(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Where parts wait: in two columns beside the product and a row behind it."""
        count, poses = len(self._parts), []
        sides = rng.permutation(count)
        for k, part in enumerate(self._parts):
            side, row = divmod(int(sides[k]), -(-count // 3))
            far, along = self._radius + 1.0, 1.15 * (row - (-(-count // 3) - 1) / 2)
            x, y = ((far, along), (-far, along), (along, far))[side] + rng.uniform(-0.1, 0.1, 2)
            poses.append(shapes.turn(rng.uniform(-math.pi, math.pi), (x, y, part.height / 2)))
        return poses

    def _clutter(self, rng: np.random.Generator) -> list[vtk.vtkActor]:
        return [self._thing(rng) for _ in range(4)]

    def _thing(self, rng: np.random.Generator) -> vtk.vtkActor:
        kind, far = rng.integers(3), self._radius + rng.uniform(2.2, 3.2)
        angle = rng.uniform(0, 2 * math.pi)
        if kind == 0:
            source = vtk.vtkCylinderSource()
            source.SetRadius(rng.uniform(0.25, 0.5))
            source.SetHeight(rng.uniform(0.4, 1.2))
            source.SetResolution(24)
            data = source
        elif kind == 1:
            data = vtk.vtkCubeSource()
            data.SetXLength(rng.uniform(0.6, 1.4))
            data.SetYLength(rng.uniform(0.8, 1.8))
            data.SetZLength(rng.uniform(0.1, 0.4))
        else:
            data = vtk.vtkSuperquadricSource()
            data.ToroidalOn()
            data.SetSize(0.5)
        data.Update()
        actor = shapes.actor(data.GetOutput(), rng.uniform(0.1, 0.95, 3), rng.uniform(*GLOSS), 30)
        actor.SetPosition(far * math.cos(angle), far * math.sin(angle), 0.25)
        actor.RotateX(rng.choice([0, 90]))
        actor.RotateZ(rng.uniform(0, 360))
        return actor

    def _draw_hands(self, rng: np.random.Generator) -> list[list[vtk.vtkActor]]:
        skin = np.asarray(SKINS[rng.integers(len(SKINS))]) + rng.uniform(-0.04, 0.04, 3)
        sleeve = skin if rng.random() < 0.3 else rng.uniform(0.05, 0.95, 3)
        return [
            [
                shapes.actor(data, colour, gloss, 15)
                for data, colour, gloss in zip(
                    shapes.hand(rng), (skin, sleeve), (0.2, 0.02), strict=True
                )
            ]
            for _ in range(2)
        ]

    def _light(self, rng: np.random.Generator) -> None:
        self._renderer.AutomaticLightCreationOff()
        tint = 1 + rng.uniform(-0.1, 0.1, 3) * (1, 0.3, 1)
        lamp = vtk.vtkLight()
        lamp.SetLightTypeToSceneLight()
        lamp.SetPositional(True)
        angle = rng.uniform(0, 2 * math.pi)
        far = rng.uniform(2, 7)
        lamp.SetPosition(far * math.cos(angle), far * math.sin(angle), rng.uniform(9, 14))
        lamp.SetFocalPoint(0, 0, 0)
        lamp.SetConeAngle(60)
        lamp.SetColor(*np.clip(tint, 0, 1))
        lamp.SetIntensity(rng.uniform(0.75, 1.1))
        fill = vtk.vtkLight()
        fill.SetLightTypeToSceneLight()
        fill.SetPosition(*rng.uniform(-5, 5, 2), 10)
        fill.SetIntensity(rng.uniform(0.15, 0.4))
        for light in (lamp, fill):
            self._renderer.AddLight(light)
        shadows, baker, passes = (
            vtk.vtkShadowMapPass(),
            vtk.vtkShadowMapBakerPass(),
            vtk.vtkRenderPassCollection(),
        )
        baker.SetResolution(512)
        shadows.SetShadowMapBakerPass(baker)
        passes.AddItem(baker)
        passes.AddItem(shadows)
        sequence, camera = vtk.vtkSequencePass(), vtk.vtkCameraPass()
        sequence.SetPasses(passes)
        camera.SetDelegatePass(sequence)
        self._shadowed = camera
        self._renderer.SetPass(camera)

    def set(self, state: np.ndarray, script: Script, i: int) -> None:
        """Puts everything where it is in frame i, the product in a state (K,)."""
        self._state = state
        pose = shapes.turn(script.yaw(i))
        if self._board:
            self._board.SetUserMatrix(shapes.placed(pose))
        ways = script.carried(i)
        for k, (part, value) in enumerate(zip(self._parts, state, strict=True)):
            at = pose @ (part.right if value > 0 else part.wrong) if value else self._trays[k]
            if k in ways and not value:
                way, to = ways[k], pose @ part.right
                at = at.copy() if way < 0.5 else to.copy()
                at[:3, 3] = (1 - way) * self._trays[k][:3, 3] + way * to[:3, 3]
                at[2, 3] += 1.6 * math.sin(math.pi * way) + 0.3 * (1 - way)
            self._pieces[k].SetUserMatrix(shapes.placed(at))
        self._set_hands(script, i, ways)
        self._set_camera(script, i)

    def _set_hands(self, script: Script, i: int, ways: Mapping[int, float]) -> None:
        for side, hand in enumerate(self._hands):
            reach, aim = script.hands(i)[side]
            sign = 1 - 2 * side
            work = aim + np.array([sign * 0.5, -0.15, 0.55])
            away = np.array([sign * (self._radius + 0.8), -self._radius - 4.5, 1.2])
            place = reach * work + (1 - reach) * away
            if side == 0 and ways:  # the right hand holds what is carried
                k = next(iter(ways))
                held = self._pieces[k].GetUserMatrix()
                place = shapes.place(held) + np.array([0.1, -0.3, 0.4])
            matrix = shapes.turn(sign * 0.35, place)
            if side:
                matrix = matrix @ np.diag([-1.0, 1, 1, 1])
            for actor in hand:
                actor.SetUserMatrix(shapes.placed(matrix))

    def _set_camera(self, script: Script, i: int) -> None:
        target = np.append(script.target[i], 0.3 * self._top)
        self._look(
            script.elevation[i], script.azimuth[i], script.distance[i], script.roll[i], target
        )

    def _look(
        self, up: float, around: float, distance: float, roll: float, target: np.ndarray
    ) -> None:
        """Puts the camera at an elevation and an azimuth, in radians; its roll is in degrees."""
        camera = self._renderer.GetActiveCamera()
        direction = np.array(
            [math.sin(around) * math.cos(up), -math.cos(around) * math.cos(up), math.sin(up)]
        )
        # The product takes some six tenths of the picture's height.
        camera.SetViewAngle(38)
        camera.SetPosition(*(target + direction * 3.4 * self._radius * distance))
        camera.SetFocalPoint(*target)
        camera.SetViewUp(0, 0, 1)
        camera.Roll(roll)
        self._renderer.ResetCameraClippingRange()

    def _read(self) -> np.ndarray:
        self._window.Render()
        self._reader.Modified()
        self._reader.Update()
        values = self._reader.GetOutput().GetPointData().GetScalars()
        side = SAMPLES * self._size
        return numpy_support.vtk_to_numpy(values).reshape(side, side, 3)[::-1]

    def picture(self) -> np.ndarray:
        """(S, S, 3) float in 0..1."""
        return self._mean(self._read())

    def _mean(self, samples: np.ndarray) -> np.ndarray:
        """The pixels (S, S, 3) in 0..1 of their samples in 0..255."""
        return samples.reshape(self._size, SAMPLES, self._size, SAMPLES, 3).mean((1, 3)) / 255

    def box(self) -> np.ndarray:
        """(4,) as in Frame, from two pictures in which the product alone is white."""
        installed = [p for p, value in zip(self._pieces, self._state, strict=True) if value]
        loose = [p for p in self._pieces if p not in installed]
        product = [*installed, *([self._board] if self._board else [])]
        hands = [actor for pair in self._hands for actor in pair]
        masks = [self._mask(product, [], loose), self._mask(product, hands, loose)]
        whole, seen = (np.count_nonzero(mask) for mask in masks)
        if not whole or seen / whole <= BOX_VISIBLE:
            return np.full(4, np.nan)
        rows, columns = np.flatnonzero(masks[0].any(1)), np.flatnonzero(masks[0].any(0))
        low = np.array([columns[0], rows[0]]) / len(masks[0])
        high = np.array([columns[-1] + 1, rows[-1] + 1]) / len(masks[0])
        return np.concatenate([(low + high) / 2, high - low])

    def _mask(
        self, white: Sequence[vtk.vtkActor], black: Sequence[vtk.vtkActor], hidden: Sequence
    ) -> np.ndarray:
        """Which samples show `white`, with nothing but `black` before it."""
        actors = [*white, *black]
        others = [
            a
            for a in (*self._others, *hidden, *(h for pair in self._hands for h in pair))
            if a not in black
        ]
        before = [(a, a.GetProperty().GetLighting(), a.GetProperty().GetColor()) for a in actors]
        background = self._renderer.GetBackground()
        self._renderer.SetBackground(0, 0, 0)
        self._renderer.SetPass(None)
        for actor in others:
            actor.VisibilityOff()
        for actor in actors:
            actor.GetProperty().LightingOff()
            actor.GetProperty().SetColor(*([1.0 if actor in white else 0.0] * 3))
            actor.GetMapper().ScalarVisibilityOff()
        mask = self._read()[..., 0] > 127
        for actor, lighting, colour in before:
            actor.GetProperty().SetLighting(lighting)
            actor.GetProperty().SetColor(*colour)
            actor.GetMapper().SetScalarVisibility(actor in white)
        for actor in others:
            actor.VisibilityOn()
        self._renderer.SetBackground(*background)
        self._renderer.SetPass(self._shadowed)
        return mask
