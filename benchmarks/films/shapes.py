"""What lies in a film's picture, as VTK has it: meshes, limbs, textures and poses."""

import math
from collections.abc import Sequence

import numpy as np
import vtk
from vtk.util import numpy_support

from data_prep.rendering.mesh import Mesh


def shown(albedos: np.ndarray) -> np.ndarray:
    """Colours in 0..255, as displayed; albedos are linear."""
    return np.sqrt(np.clip(albedos, 0, 1)) * 255


def surface(mesh: Mesh) -> vtk.vtkPolyData:
    """A mesh with its colours, each face flat."""
    data = vtk.vtkPolyData()
    points, cells = vtk.vtkPoints(), vtk.vtkCellArray()
    points.SetData(numpy_support.numpy_to_vtk(np.ascontiguousarray(mesh.vertices), deep=True))
    rows = np.column_stack([np.full(len(mesh.faces), 3), mesh.faces]).astype(np.int64)
    cells.SetCells(len(rows), numpy_support.numpy_to_vtkIdTypeArray(rows.ravel(), deep=True))
    data.SetPoints(points)
    data.SetPolys(cells)
    data.GetCellData().SetScalars(
        numpy_support.numpy_to_vtk(np.ascontiguousarray(shown(mesh.colours), np.uint8), deep=True)
    )
    return data


def polydata(mesh: Mesh) -> vtk.vtkPolyData:
    """A mesh with its colours, round where it is round."""
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputData(surface(mesh))
    normals.SetFeatureAngle(35)  # edges stay edges
    normals.Update()
    return normals.GetOutput()


def actor(data: vtk.vtkPolyData, colour: Sequence[float] | None, gloss: float, power: float):
    """What VTK draws of a surface; without a colour, in those of its faces."""
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


def tube(points: Sequence[Sequence[float]], radii: Sequence[float]) -> vtk.vtkPolyData:
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


def hand(rng: np.random.Generator) -> tuple[vtk.vtkPolyData, vtk.vtkPolyData]:
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
        joined.AddInputData(tube(points, (0.11, 0.1, 0.075)))
    thumb = [(-0.3, -0.15, 0), (-0.62, 0.1, -0.1), (-0.6, 0.42, -0.28)]
    joined.AddInputData(tube(thumb, (0.14, 0.12, 0.08)))
    joined.AddInputData(tube([(0, -0.3, 0), (0, -0.7, 0.1), (0, -1.1, 0.2)], (0.24, 0.2, 0.22)))
    joined.Update()
    arm = tube([(0, -1.0, 0.18), (0.1, -3.5, 1.2), (0.3, -8.0, 3.2)], (0.33, 0.42, 0.55))
    return joined.GetOutput(), arm


def texture(rng: np.random.Generator) -> vtk.vtkTexture:
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


def placed(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    """A pose (4, 4) as VTK takes it."""
    placed = vtk.vtkMatrix4x4()
    placed.DeepCopy(matrix.ravel())
    return placed


def turn(yaw: float, place: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """A pose (4, 4) that is turned by `yaw` radians about the vertical, at a place."""
    c, s = math.cos(yaw), math.sin(yaw)
    matrix = np.eye(4)
    matrix[:2, :2] = (c, -s), (s, c)
    matrix[:3, 3] = place
    return matrix


def place(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """Where a pose of VTK is (3,)."""
    return np.array([matrix.GetElement(row, 3) for row in range(3)])


def turned(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """How a pose of VTK turns (3, 3)."""
    return np.array([[matrix.GetElement(row, column) for column in range(3)] for row in range(3)])
