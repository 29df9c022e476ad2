"""Pictures of a product before anything is trained: its states, parts and wrong fittings.

A page of them is one HTML file that needs nothing else.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from data_prep.products import wrong_poses
from data_prep.products.product import Product
from data_prep.rendering.mesh import Mesh
from data_prep.rendering.scene import Body, Camera, Light, Placed, around, render
from stormpsr_jax.base import files
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.report import pages

MAX_STATES = 200  # shown, evenly spread
WRONG = 6  # fittings of each part
_SIZE, _QUALITY = 192, 80
_AROUND, _ABOVE = np.radians((20.0, 38.0))  # where the camera is: from the front, from above
_LIGHT = Light(np.array([0.3, -0.5, 0.81]), np.full(3, 0.45), np.full(3, 0.62))
_GROUND = np.full(3, 0.82)


def write(
    path: str | Path, product: Product, procedure: Procedure, warnings: Sequence[str]
) -> None:
    """Writes the page of a product whose K parts are in the order of the components."""
    every = np.ones(len(product.parts), np.int8)
    camera = around(product.mesh(every), _AROUND, _ABOVE)  # one, to compare pictures
    rng = np.random.default_rng(0)
    wrong = [wrong_poses.with_wrong_poses(product, rng) for _ in range(WRONG)]

    def shown(of: Product, state: np.ndarray) -> str:
        return base64.b64encode(_picture(camera, of.mesh(state))).decode()

    def installed(state: np.ndarray) -> str:
        return ", ".join(procedure.components[k] for k in np.flatnonzero(state))

    def component(k: int) -> dict:
        """Part k as it should sit and as it may not, in the smallest state that has it."""
        states = procedure.states[procedure.states[:, k] == 1]
        alone = np.eye(len(every), dtype=np.int8)[k]
        row = states[states.sum(axis=1).argmin()] if len(states) else alone
        part = product.parts[k]
        return {
            "number": k,
            "name": procedure.components[k],
            "size": " × ".join(f"{edge / product.scale:.3g}" for edge in part.extent),
            "faces": len(part.mesh.faces),
            "with": installed(row - alone),
            "right": shown(product, row),
            "wrong": [shown(other, row - 2 * alone) for other in wrong],
        }

    chosen = np.linspace(0, procedure.num_states - 1, min(procedure.num_states, MAX_STATES))
    text = pages.template("product.html").render(
        procedure=procedure,
        warnings=warnings,
        states=[
            {
                "number": s + 1,
                "digits": "".join(map(str, procedure.states[s].tolist())),
                "parts": installed(procedure.states[s]),
                "jpeg": shown(product, procedure.states[s]),
            }
            for s in chosen.round().astype(int).tolist()
        ],
        components=[component(k) for k in range(len(every))],
    )
    files.write_text(path, text)


def _picture(camera: Camera, mesh: Mesh) -> bytes:
    body = Placed(Body(mesh), np.eye(4))
    image = render(body, [], camera, _LIGHT, _GROUND, _SIZE).image
    pixels = np.ascontiguousarray((255 * image + 0.5).astype(np.uint8))
    return simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorsubsampling="444")
