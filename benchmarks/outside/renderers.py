"""Two renderers: VTK draws surfaces, some videos with shadows; Mitsuba traces paths of light."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.outside.parts import METAL, Solid
from benchmarks.outside.scenes import Place, Scene

SIZE = 192  # pixels each way

# --- Two renderers --------------------------------------------------------------------------------


def with_mitsuba(place: Place) -> Callable[[Scene, int], np.ndarray]:
    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    import drjit as dr

    dr.set_thread_count(1)
    rough = [place.rng.uniform(0.25, 0.6) for _ in range(2)]

    def mesh(solid: Solid, kind: int) -> Any:
        rows = solid.kinds == kind
        albedo = {"type": "mesh_attribute", "name": "face_color"}
        bsdf: dict[str, Any] = {"type": "diffuse", "reflectance": albedo}
        if kind:
            bsdf = {"type": "principled", "base_color": albedo, "roughness": rough[kind - 1]}
            bsdf["metallic"] = 0.75 if kind == METAL else 0.0
        properties = mi.Properties()
        properties["bsdf"] = mi.load_dict({"type": "twosided", "of": bsdf})
        corners = solid.vertices[solid.faces[rows]]
        count = len(corners)
        made = mi.Mesh("part", 3 * count, count, props=properties)
        made.add_attribute(
            "face_color", 3, np.clip(solid.colours[rows], 0.004, 0.95).ravel().tolist()
        )
        values = mi.traverse(made)
        values["vertex_positions"] = corners.ravel().astype(np.float32)
        values["faces"] = np.arange(3 * count, dtype=np.uint32)
        values.update()
        return made

    def picture(scene: Scene, seed: int) -> np.ndarray:
        light, move = scene.light, mi.ScalarTransform4f
        far2 = float(np.square(light["from"]).sum())
        level = light["level"] * (1 - light["sky"]) * far2 / (light["radius"] ** 2) * light["tint"]
        content: dict[str, Any] = {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 4},
            "sky": {
                "type": "constant",
                "radiance": {"type": "rgb", "value": [float(light["sky"] * light["level"])] * 3},
            },
            "lamp": {
                "type": "disk",
                "to_world": move().look_at(light["from"].tolist(), [0, 0, 0], [0, 1, 0.1])
                @ move().scale(float(light["radius"])),
                "emitter": {"type": "area", "radiance": {"type": "rgb", "value": level.tolist()}},
            },
            "camera": {
                "type": "perspective",
                "fov": math.degrees(scene.view),
                "to_world": move().look_at(scene.eye.tolist(), scene.target.tolist(), [0, 0, 1]),
                "film": {
                    "type": "hdrfilm",
                    "width": SIZE,
                    "height": SIZE,
                    "rfilter": {"type": "box"},
                },
                "sampler": {"type": "independent", "sample_count": 12},
            },
        }
        for kind in range(3):
            content[f"solid_{kind}"] = mesh(scene.solid, kind)
        return np.array(mi.render(mi.load_dict(content), seed=seed))[..., :3]

    return picture


def with_vtk(place: Place) -> Callable[[Scene, int], np.ndarray]:
    import vtk
    from vtk.util import numpy_support

    vtk.vtkObject.GlobalWarningDisplayOff()
    window, renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
    window.SetOffScreenRendering(1)
    window.SetSize(2 * SIZE, 2 * SIZE)
    window.SetMultiSamples(0)
    window.AddRenderer(renderer)
    renderer.SetBackground(0.2, 0.2, 0.22)
    shadows = place.rng.random() < 0.6
    if shadows:
        passes, sequence, baker = (
            vtk.vtkShadowMapPass(),
            vtk.vtkSequencePass(),
            vtk.vtkShadowMapBakerPass(),
        )
        baker.SetResolution(1024)
        passes.SetShadowMapBakerPass(baker)
        collection = vtk.vtkRenderPassCollection()
        for each in (baker, passes):
            collection.AddItem(each)
        sequence.SetPasses(collection)
        camera_pass = vtk.vtkCameraPass()
        camera_pass.SetDelegatePass(sequence)
        renderer.SetPass(camera_pass)
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    shine = place.rng.uniform(0.1, 0.5)

    def picture(scene: Scene, seed: int) -> np.ndarray:
        del seed
        renderer.RemoveAllViewProps()
        renderer.RemoveAllLights()
        solid, light = scene.solid, scene.light
        for kind in range(3):
            rows = solid.kinds == kind
            corners = np.ascontiguousarray(
                solid.vertices[solid.faces[rows]].reshape(-1, 3), np.float32
            )
            data, points, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
            points.SetData(numpy_support.numpy_to_vtk(corners, deep=True))
            ids = np.arange(len(corners), dtype=np.int64)
            cells.SetData(
                numpy_support.numpy_to_vtkIdTypeArray(
                    np.arange(0, len(corners) + 1, 3, dtype=np.int64), deep=True
                ),
                numpy_support.numpy_to_vtkIdTypeArray(ids, deep=True),
            )
            data.SetPoints(points)
            data.SetPolys(cells)
            shown = np.clip(solid.colours[rows] ** (1 / 2.2) * 255, 0, 255).astype(np.uint8)
            data.GetCellData().SetScalars(numpy_support.numpy_to_vtk(shown, deep=True))
            mapper = vtk.vtkPolyDataMapper()
            mapper.SetInputData(data)
            actor = vtk.vtkActor()
            actor.SetMapper(mapper)
            how = actor.GetProperty()
            how.SetInterpolationToFlat()
            how.SetAmbient(light["sky"])
            how.SetDiffuse(0.9)
            how.SetSpecular((0, shine, 0.6)[kind])
            how.SetSpecularPower((1, 30, 15)[kind])
            renderer.AddActor(actor)
        for where, strength in ((light["from"], 0.75), (np.array([-300, -600, 900]), 0.25)):
            lamp = vtk.vtkLight()
            lamp.SetLightTypeToSceneLight()
            lamp.SetPositional(shadows)
            lamp.SetConeAngle(60)
            lamp.SetPosition(*where)
            lamp.SetFocalPoint(0, 0, 0)
            lamp.SetColor(*np.clip(light["tint"] / light["tint"].max(), 0, 1))
            lamp.SetIntensity(strength * light["level"])
            renderer.AddLight(lamp)
        camera = renderer.GetActiveCamera()
        camera.SetPosition(*scene.eye)
        camera.SetFocalPoint(*scene.target)
        camera.SetViewUp(0, 0, 1)
        camera.SetViewAngle(math.degrees(scene.view))
        camera.SetClippingRange(20, 6000)
        window.Render()
        grab.Modified()
        grab.Update()
        image = grab.GetOutput()
        pixels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        pixels = pixels.reshape(2 * SIZE, 2 * SIZE, -1)[::-1, :, :3]
        half = pixels.reshape(SIZE, 2, SIZE, 2, 3).mean(axis=(1, 3))
        return (half / 255) ** 2.2

    return picture


MAKERS = {"mitsuba": with_mitsuba, "vtk": with_vtk}
