"""Films of an assembly by another renderer: VTK, with shadows, gloss, textures and other hands.

Figures of what was learnt from this package's renders are worth little on more of these renders.
Here nothing but the product's meshes and the timeline comes from `data_prep`: light,
table, clutter, hands, their ways, the camera, its path and its faults are made anew.

VTK (`pip install vtk`, in the extra `dev`) draws off screen, on the processor if need be.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import vtk
from vtk.util import numpy_support

from data_prep.products.product import Product
from data_prep.rendering.mesh import Mesh
from data_prep.worlds.timelines import Timeline, changes

SAMPLES = 2  # each way, of a pixel
BOX_VISIBLE = 0.9  # as in the real data sets: no box where hands hide more than a tenth
GLOSS, GLOSS_POWER = (0.05, 0.5), (8, 60)
SKINS = ((0.93, 0.76, 0.65), (0.78, 0.58, 0.45), (0.55, 0.38, 0.28), (0.36, 0.25, 0.2))
REST, WORK = 0.0, 1.0
CARRY = 1.4  # seconds that a part takes from its tray to its place
LEAVE = 0.7  # seconds that a hand takes from its work to the edge


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame of a film.

    Attributes:
        picture: uint8 (S, S, 3) RGB.
        box: (4,) cx, cy, w, h in 0..1 of the product, NaN where more than a tenth of it is hidden.
    """

    picture: np.ndarray
    box: np.ndarray


def film(
    product: Product,
    timeline: Timeline,
    fps: float,
    size: int,
    rng: np.random.Generator,
    box_every: int = 1,
) -> Iterator[Frame]:
    """Films a recording; `rng` draws everything that the timeline does not say.

    Args:
        product: its parts and their right and wrong places.
        timeline: what happens when, states (K,) as in the product.
        fps: frames per second.
        size: S, pixels each way.
        rng: draws looks and movements.
        box_every: only every so many-th frame has a box, as each takes two pictures more.
    """
    looks, ways, faults = rng.spawn(3)
    script = _Script(product, timeline, fps, ways)
    stage = _Stage(product, size, looks)
    sensor = _Sensor(faults)
    states = timeline.per_frame()
    for i, state in enumerate(states):
        stage.set(state, script, i)
        box = np.full(4, np.nan) if i % box_every else stage.box()
        yield Frame(sensor.expose(stage.picture()), box)


# --- What moves -----------------------------------------------------------------------------------


def _smooth(rng: np.random.Generator, count: int, fps: float, period: float) -> np.ndarray:
    """(N,) noise of standard deviation 1 that changes over about `period` seconds."""
    width = max(1, round(period * fps))
    raw = rng.standard_normal(count + 6 * width)
    kernel = np.exp(-0.5 * np.linspace(-3, 3, 6 * width + 1) ** 2)
    return np.convolve(raw, kernel / np.sqrt((kernel**2).sum()), "valid")


def _between(time: float, start: float, end: float) -> float:
    x = min(max((time - start) / (end - start), 0.0), 1.0)
    return x * x * (3 - 2 * x)


class _Script:
    """Where product, hands, carried part and camera are in every frame."""

    def __init__(self, product: Product, timeline: Timeline, fps: float, rng: np.random.Generator):
        count = timeline.num_frames
        self._fps = fps
        self.places = [part.right[:3, 3] for part in product.parts]
        self._events = [(frame / fps, dict(what)) for frame, what in changes(timeline)]
        self._before = rng.uniform(1.6, 3.2, len(self._events))
        self._after = rng.uniform(0.6, 2.2, len(self._events))
        self._idle = rng.random((len(self._events) + 1, 2)) < 0.35
        turns = rng.normal(0, 0.35, len(self._events) + 1)
        turns[rng.random(len(turns)) < 0.12] += math.pi
        self._turns = turns
        self.drift = 0.05 * _smooth(rng, count, fps, 3.0)
        self._jitter = np.stack([_smooth(rng, count, fps, 0.8) for _ in range(6)], axis=1)
        elevation, azimuth = np.radians(rng.uniform(42, 68)), np.radians(rng.uniform(-32, 32))
        walk = np.stack([_smooth(rng, count, fps, 4.0) for _ in range(4)], axis=1)
        self.elevation = elevation + 0.06 * walk[:, 0]
        self.azimuth = azimuth + 0.09 * walk[:, 1]
        self.distance = rng.uniform(0.95, 1.25) * (1 + 0.03 * walk[:, 2])
        self.roll = np.degrees(0.05 * walk[:, 3])
        self.target = 0.12 * np.stack([_smooth(rng, count, fps, 3.0) for _ in range(2)], axis=1)

    def yaw(self, i: int) -> float:
        """The product's turn: it changes while hands are on it."""
        time, turn = i / self._fps, self._turns[0]
        for (at, _), before, new in zip(self._events, self._before, self._turns[1:], strict=True):
            turn += (new - turn) * _between(time, at - before, at - 0.3 * before)
        return float(turn + self.drift[i])

    def hands(self, i: int) -> list[tuple[float, np.ndarray]]:
        """Of the right and the left hand how far in they are (0…1), and what they are at (3,)."""
        time = i / self._fps
        number = sum(at < time for at, _ in self._events)
        reach = [0.55 if idle else REST for idle in self._idle[number]]
        aim = np.zeros(3)
        for (at, changed), before, after in zip(
            self._events, self._before, self._after, strict=True
        ):
            inside = _between(time, at - before - LEAVE, at - before)
            inside *= 1 - _between(time, at + after, at + after + LEAVE)
            if inside > 0:
                reach = [max(r, inside * WORK) for r in reach]
                aim = np.mean([self.places[k] for k in changed], axis=0)
        c, s = math.cos(self.yaw(i)), math.sin(self.yaw(i))
        aim = np.array([c * aim[0] - s * aim[1], s * aim[0] + c * aim[1], aim[2]])
        shake = 0.06 * self._jitter[i].reshape(2, 3)
        return [(r, aim + side) for r, side in zip(reach, shake, strict=True)]

    def carried(self, i: int) -> dict[int, float]:
        """Parts on their way: {component: 0 at its tray … 1 at its place}."""
        time, found = i / self._fps, {}
        for at, changed in self._events:
            for k, (old, new) in changed.items():
                if old == 0 and at - CARRY < time < at:
                    found[k] = _between(time, at - CARRY, at - 0.2)
                elif new == 0 and at <= time < at + CARRY:
                    found[k] = 1 - _between(time, at, at + CARRY)
        return found


# --- What is seen ---------------------------------------------------------------------------------


def _polydata(mesh: Mesh) -> vtk.vtkPolyData:
    data = vtk.vtkPolyData()
    points, cells = vtk.vtkPoints(), vtk.vtkCellArray()
    points.SetData(numpy_support.numpy_to_vtk(np.ascontiguousarray(mesh.vertices), deep=True))
    rows = np.column_stack([np.full(len(mesh.faces), 3), mesh.faces]).astype(np.int64)
    cells.SetCells(len(rows), numpy_support.numpy_to_vtkIdTypeArray(rows.ravel(), deep=True))
    colours = np.sqrt(np.clip(mesh.colours, 0, 1)) * 255  # albedos are linear
    data.SetPoints(points)
    data.SetPolys(cells)
    data.GetCellData().SetScalars(
        numpy_support.numpy_to_vtk(np.ascontiguousarray(colours, np.uint8), deep=True)
    )
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputData(data)
    normals.SetFeatureAngle(35)  # round where it is round, and edges stay edges
    normals.Update()
    return normals.GetOutput()


def _actor(data: vtk.vtkPolyData, colour: Sequence[float] | None, gloss: float, power: float):
    mapper, actor = vtk.vtkPolyDataMapper(), vtk.vtkActor()
    mapper.SetInputData(data)
    mapper.SetScalarVisibility(colour is None)
    actor.SetMapper(mapper)
    look = actor.GetProperty()
    look.SetInterpolationToPhong()
    look.SetAmbient(0.25)
    look.SetDiffuse(0.75)
    look.SetSpecular(gloss)
    look.SetSpecularPower(power)
    if colour is not None:
        look.SetColor(*np.clip(colour, 0, 1))
    return actor


def _tube(points: Sequence[Sequence[float]], radii: Sequence[float]) -> vtk.vtkPolyData:
    """A bent, tapered limb through points, round at its ends."""
    spline, steps = vtk.vtkParametricSpline(), vtk.vtkParametricFunctionSource()
    corners = vtk.vtkPoints()
    for point in points:
        corners.InsertNextPoint(*point)
    spline.SetPoints(corners)
    steps.SetParametricFunction(spline)
    steps.SetUResolution(10)
    steps.Update()
    line = steps.GetOutput()
    along = np.linspace(0, len(radii) - 1, line.GetNumberOfPoints())
    width = np.interp(along, range(len(radii)), radii)
    line.GetPointData().SetScalars(numpy_support.numpy_to_vtk(width, deep=True))
    tube = vtk.vtkTubeFilter()
    tube.SetInputData(line)
    tube.SetVaryRadiusToVaryRadiusByAbsoluteScalar()
    tube.SetNumberOfSides(10)
    joined = vtk.vtkAppendPolyData()
    tube.Update()
    joined.AddInputData(tube.GetOutput())
    for point, radius in ((points[0], radii[0]), (points[-1], radii[-1])):
        ball = vtk.vtkSphereSource()
        ball.SetCenter(*point)
        ball.SetRadius(radius)
        ball.Update()
        joined.AddInputData(ball.GetOutput())
    joined.Update()
    result = joined.GetOutput()
    result.GetPointData().SetScalars(None)
    return result


def _hand(rng: np.random.Generator) -> tuple[vtk.vtkPolyData, vtk.vtkPolyData]:
    """A bare right hand, its palm at the origin, fingers to +y; and its forearm."""
    joined = vtk.vtkAppendPolyData()
    palm = vtk.vtkParametricFunctionSource()
    shape = vtk.vtkParametricSuperEllipsoid()
    shape.SetXRadius(0.42)
    shape.SetYRadius(0.5)
    shape.SetZRadius(0.17)
    shape.SetN1(0.7)
    shape.SetN2(0.8)
    palm.SetParametricFunction(shape)
    palm.Update()
    plain = palm.GetOutput()
    plain.GetPointData().SetScalars(None)
    joined.AddInputData(plain)
    for x, length in ((-0.31, 0.62), (-0.1, 0.78), (0.11, 0.72), (0.3, 0.52)):
        curl = rng.uniform(0.15, 0.6)
        joint, tip = 0.4 + 0.55 * length, 0.4 + (1 - 0.5 * curl) * length
        points = [(x, 0.38, 0), (x * 1.1, joint, 0.04), (x * 1.1, tip, -curl * length)]
        joined.AddInputData(_tube(points, (0.11, 0.1, 0.075)))
    thumb = [(-0.3, -0.15, 0), (-0.62, 0.1, -0.1), (-0.6, 0.42, -0.28)]
    joined.AddInputData(_tube(thumb, (0.14, 0.12, 0.08)))
    joined.AddInputData(_tube([(0, -0.3, 0), (0, -0.7, 0.1), (0, -1.1, 0.2)], (0.24, 0.2, 0.22)))
    joined.Update()
    arm = _tube([(0, -1.0, 0.18), (0.1, -3.5, 1.2), (0.3, -8.0, 3.2)], (0.33, 0.42, 0.55))
    return joined.GetOutput(), arm


def _texture(rng: np.random.Generator) -> vtk.vtkTexture:
    """A table top: wood, cloth or squared paper."""
    size = 256
    y, x = np.mgrid[:size, :size] / size
    kind = rng.integers(3)
    noise = rng.standard_normal((size, size))
    if kind == 0:
        bends = sum(np.sin(2 * np.pi * (k * y + rng.random())) / k for k in range(1, 4))
        grain = np.sin(2 * np.pi * (14 * x + 0.35 * bends)) + 0.25 * noise
    elif kind == 1:
        grain = np.sin(2 * np.pi * 40 * x) * np.sin(2 * np.pi * 40 * y) + 0.3 * noise
    else:
        lines = ((x * 16) % 1 < 0.05) | ((y * 16) % 1 < 0.05)
        grain = np.where(lines, -2.0, 0.4) + 0.1 * noise
    base = rng.uniform(0.25, 0.85) + rng.uniform(-0.12, 0.12, 3)
    picture = np.clip(base + 0.05 * grain[..., None], 0, 1) * 255
    image = vtk.vtkImageData()
    image.SetDimensions(size, size, 1)
    values = np.ascontiguousarray(picture.reshape(-1, 3), np.uint8)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(values, deep=True))
    texture = vtk.vtkTexture()
    texture.SetInputData(image)
    texture.RepeatOn()
    texture.InterpolateOn()
    return texture


def _placed(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    placed = vtk.vtkMatrix4x4()
    placed.DeepCopy(matrix.ravel())
    return placed


def _turn(yaw: float, place: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    c, s = math.cos(yaw), math.sin(yaw)
    matrix = np.eye(4)
    matrix[:2, :2] = (c, -s), (s, c)
    matrix[:3, 3] = place
    return matrix


class _Stage:
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
        self._others = [self._table(rng)]
        self._pieces = [self._piece(part.mesh, rng) for part in product.parts]
        # Lies on the table; meshes of CAD have none.
        self._board = self._piece(product.board, rng) if len(product.board.faces) else None
        self._trays = self._lay_out(rng)
        self._others += [self._clutter(rng) for _ in range(4)]
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
        return _actor(_polydata(mesh), None, rng.uniform(*GLOSS), rng.uniform(*GLOSS_POWER))

    def _table(self, rng: np.random.Generator) -> vtk.vtkActor:
        plane = vtk.vtkPlaneSource()
        plane.SetOrigin(-30, -30, -0.01)
        plane.SetPoint1(30, -30, -0.01)
        plane.SetPoint2(-30, 30, -0.01)
        plane.Update()
        data = plane.GetOutput()
        around = numpy_support.vtk_to_numpy(data.GetPointData().GetTCoords()) * rng.uniform(6, 14)
        data.GetPointData().SetTCoords(numpy_support.numpy_to_vtk(around, deep=True))
        actor = _actor(data, (1, 1, 1), rng.uniform(0, 0.25), 20)
        actor.SetTexture(_texture(rng))
        return actor

    def _lay_out(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Where parts wait: in two columns beside the product and a row behind it."""
        count, poses = len(self._parts), []
        sides = rng.permutation(count)
        for k, part in enumerate(self._parts):
            side, row = divmod(int(sides[k]), -(-count // 3))
            far, along = self._radius + 1.0, 1.15 * (row - (-(-count // 3) - 1) / 2)
            x, y = ((far, along), (-far, along), (along, far))[side] + rng.uniform(-0.1, 0.1, 2)
            poses.append(_turn(rng.uniform(-math.pi, math.pi), (x, y, part.height / 2)))
        return poses

    def _clutter(self, rng: np.random.Generator) -> vtk.vtkActor:
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
        actor = _actor(data.GetOutput(), rng.uniform(0.1, 0.95, 3), rng.uniform(*GLOSS), 30)
        actor.SetPosition(far * math.cos(angle), far * math.sin(angle), 0.25)
        actor.RotateX(rng.choice([0, 90]))
        actor.RotateZ(rng.uniform(0, 360))
        return actor

    def _draw_hands(self, rng: np.random.Generator) -> list[list[vtk.vtkActor]]:
        skin = np.asarray(SKINS[rng.integers(len(SKINS))]) + rng.uniform(-0.04, 0.04, 3)
        sleeve = skin if rng.random() < 0.3 else rng.uniform(0.05, 0.95, 3)
        return [
            [
                _actor(data, colour, gloss, 15)
                for data, colour, gloss in zip(_hand(rng), (skin, sleeve), (0.2, 0.02), strict=True)
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

    def set(self, state: np.ndarray, script: _Script, i: int) -> None:
        """Puts everything where it is in frame i, the product in a state (K,)."""
        self._state = state
        pose = _turn(script.yaw(i))
        if self._board:
            self._board.SetUserMatrix(_placed(pose))
        ways = script.carried(i)
        for k, (part, value) in enumerate(zip(self._parts, state, strict=True)):
            at = pose @ (part.right if value > 0 else part.wrong) if value else self._trays[k]
            if k in ways and not value:
                way, to = ways[k], pose @ part.right
                at = at.copy() if way < 0.5 else to.copy()
                at[:3, 3] = (1 - way) * self._trays[k][:3, 3] + way * to[:3, 3]
                at[2, 3] += 1.6 * math.sin(math.pi * way) + 0.3 * (1 - way)
            self._pieces[k].SetUserMatrix(_placed(at))
        self._set_hands(script, i, ways)
        self._set_camera(script, i)

    def _set_hands(self, script: _Script, i: int, ways: Mapping[int, float]) -> None:
        for side, (reach, aim) in enumerate(script.hands(i)):
            sign = 1 - 2 * side
            work = aim + np.array([sign * 0.5, -0.15, 0.55])
            away = np.array([sign * (self._radius + 0.8), -self._radius - 4.5, 1.2])
            place = reach * work + (1 - reach) * away
            if side == 0 and ways:  # the right hand holds what is carried
                k = next(iter(ways))
                held = self._pieces[k].GetUserMatrix()
                place = _place(held) + np.array([0.1, -0.3, 0.4])
            matrix = _turn(sign * 0.35, place)
            if side:
                matrix = matrix @ np.diag([-1.0, 1, 1, 1])
            for actor in self._hands[side]:
                actor.SetUserMatrix(_placed(matrix))

    def _set_camera(self, script: _Script, i: int) -> None:
        camera = self._renderer.GetActiveCamera()
        up, around = script.elevation[i], script.azimuth[i]
        direction = np.array(
            [math.sin(around) * math.cos(up), -math.cos(around) * math.cos(up), math.sin(up)]
        )
        target = np.append(script.target[i], 0.3 * self._top)
        # The product takes some six tenths of the picture's height.
        camera.SetViewAngle(38)
        camera.SetPosition(*(target + direction * 3.4 * self._radius * script.distance[i]))
        camera.SetFocalPoint(*target)
        camera.SetViewUp(0, 0, 1)
        camera.Roll(script.roll[i])
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
        samples = self._read().reshape(self._size, SAMPLES, self._size, SAMPLES, 3)
        return samples.mean((1, 3)) / 255

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


def _place(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    return np.array([matrix.GetElement(row, 3) for row in range(3)])


class _Sensor:
    """What a cheap camera makes of a picture: softness, gain, colour cast, gamma, noise."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._gain = rng.uniform(0.85, 1.15) * (1 + rng.uniform(-0.05, 0.05, 3))
        self._gamma = rng.uniform(0.85, 1.15)
        self._noise = rng.uniform(1.0, 4.0)
        self._soft = rng.uniform(0.0, 0.25)

    def expose(self, picture: np.ndarray) -> np.ndarray:
        """uint8 (S, S, 3) of a picture (S, S, 3) in 0..1."""
        padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), "edge")
        around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        soft = (1 - self._soft) * picture + self._soft * around / 4
        shown = 255 * np.clip(soft * self._gain, 0, 1) ** self._gamma
        shown += self._noise * self._rng.standard_normal(picture.shape)
        return np.clip(shown + 0.5, 0, 255).astype(np.uint8)
