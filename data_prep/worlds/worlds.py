"""Worlds: what is drawn of how recordings look, and of what people do in them.

`toy` is the world of the README's run. Hands and lights are kind in it, and each look at the
product tells a lot. `bench` is like what a head-worn camera sees at a real bench: the product is
seldom whole in view, people take their time, what looks fitted may not be, and light, bench and
things around are of any kind. Its laws of time are fitted to the labels of real recordings, and
those of what is in view to the published detections of IndustReal (benchmarks/results/noise.md).
`anywhere` has the habits of `toy`. Half of its recordings have its looks too, and half those of all
stations: worn cameras and fixed ones, low down too, one hand or two, dull and shiny things, and
benches of any colour or texture, noise included.
"""

import dataclasses
from collections.abc import Mapping

from data_prep.rendering.ranges import Range
from data_prep.worlds.hiding import GLIMPSES, OCCLUSIONS, Glimpses, Occlusion
from data_prep.worlds.motion import HEAD, View
from data_prep.worlds.timelines import USUAL, Habits

Colour = tuple[float, float, float]  # as displayed, in 0..1


@dataclasses.dataclass(frozen=True)
class Lights:
    """One distant lamp and what comes from everywhere.

    Attributes:
        warmth: what red has more, and blue less.
        ambient: share of the light that comes from everywhere.
        drift: share by which the brightness goes up and down within a recording.
        lean: standard deviation of the lamp's place beside the vertical, at height 1.
        gloss: how bright the highlights on all that is there are, of the lamp's light.
    """

    level: Range
    warmth: Range
    ambient: Range
    drift: Range
    lean: float
    gloss: Range


@dataclasses.dataclass(frozen=True)
class Benches:
    """What the product lies on.

    Attributes:
        colours: of the plain ones.
        contrast: of the second colour.
        textures: of `grounds.TEXTURES`; none: two colours with a soft grain between them.
        fine: how fine a texture is; 1 is as it was made.
    """

    colours: tuple[Colour, ...]
    contrast: Range
    textures: tuple[str, ...]
    fine: Range


@dataclasses.dataclass(frozen=True)
class Clutter:
    """Things that belong to no product, or to another copy of this one.

    Attributes:
        dull: number of dull things far from the product.
        alike: number of further things in the colours of the parts, or of their shapes, or both;
        near: and how far from the product's middle they lie.
    """

    dull: int
    alike: Range
    near: Range


@dataclasses.dataclass(frozen=True)
class Hands:
    """The worker's hands.

    Attributes:
        skins, gloves: their colours,
        gloved: and share of recordings with gloves.
        size: relative to the product.
        tools: of `hands.TOOLS`, one of which most right hands hold.
        one: share of recordings in which the left hand stays away.
    """

    skins: tuple[Colour, ...]
    gloves: tuple[Colour, ...]
    gloved: float
    size: Range
    tools: tuple[str, ...]
    one: float


@dataclasses.dataclass(frozen=True)
class Paint:
    """How a copy of a part differs from the product's: in hue (turns), saturation and brightness.

    The latter two are shares by which there is more.
    """

    hue: Range
    saturation: Range
    value: Range


@dataclasses.dataclass(frozen=True)
class World:
    """What is drawn, by kind.

    Attributes:
        habits: what people do, and when.
        hidden: how long the product is in view, by level of occlusion.
        nearly_right: share of the incorrect parts which are turned or shifted only a little.
        cameras: what the product may be seen from.
        exposure: factor on the light that a camera takes in.
        shutter: share of the time between frames in which it takes it in, and smears what moves.
        lens: distortion, see `rendering.sensor`.
        noise: standard deviation of a pixel's noise, of 1.
        jpeg: quality of the files.
        also: what half of the recordings are of, in place of this world.
    """

    name: str
    habits: Habits
    hidden: Mapping[str, Occlusion | Glimpses]
    nearly_right: float
    paint: Paint
    lights: Lights
    benches: Benches
    clutter: Clutter
    hands: Hands
    cameras: tuple[View, ...]
    exposure: Range
    shutter: Range
    lens: Range
    noise: Range
    jpeg: Range
    also: "World | None" = None


_SKINS = ((0.95, 0.78, 0.66), (0.86, 0.64, 0.5), (0.65, 0.45, 0.33), (0.42, 0.28, 0.2))
_GLOVES = ((0.25, 0.4, 0.6), (0.2, 0.2, 0.22), (0.85, 0.85, 0.82), (0.55, 0.55, 0.5))
_TABLES = (
    (0.52, 0.42, 0.33), (0.42, 0.43, 0.45), (0.36, 0.44, 0.4), (0.3, 0.26, 0.24),
    (0.36, 0.4, 0.5), (0.58, 0.54, 0.48),
)  # fmt: skip
# Of bench: dark and light ones in either half.
_MORE_SKINS = (
    (0.95, 0.78, 0.66), (0.65, 0.45, 0.33), (0.3, 0.19, 0.14),
    (0.86, 0.64, 0.5), (0.42, 0.28, 0.2), (0.98, 0.84, 0.76),
)  # fmt: skip
_MORE_GLOVES = (
    (0.25, 0.4, 0.6), (0.2, 0.2, 0.22), (0.9, 0.45, 0.15), (0.15, 0.35, 0.75),
    (0.85, 0.85, 0.82), (0.55, 0.55, 0.5), (0.75, 0.7, 0.2), (0.2, 0.5, 0.35),
)  # fmt: skip
_MORE_TABLES = (
    (0.52, 0.42, 0.33), (0.36, 0.4, 0.5), (0.2, 0.2, 0.22), (0.68, 0.56, 0.4),
    (0.42, 0.43, 0.45), (0.36, 0.44, 0.4), (0.8, 0.78, 0.74), (0.3, 0.26, 0.24),
)  # fmt: skip
_PAINTED = (
    (0.2, 0.35, 0.7), (0.75, 0.5, 0.45), (0.35, 0.65, 0.4), (0.95, 0.95, 0.93),
    (0.55, 0.3, 0.35), (0.35, 0.6, 0.75), (0.6, 0.75, 0.5), (0.05, 0.05, 0.06),
)  # fmt: skip
_TEXTURES = ("boards", "mat", "speckles", "scratches", "sheets", "stripes")
_NONE, _ONE = Range(0, 0), Range(1, 1)

TOY = World(
    name="toy",
    habits=USUAL,
    hidden=OCCLUSIONS,
    nearly_right=0.0,
    paint=Paint(_NONE, _NONE, _NONE),
    lights=Lights(
        level=Range(0.72, 1.12),
        warmth=Range(-0.13, 0.13),
        ambient=Range(0.35, 0.6),
        drift=_NONE,
        lean=0.45,
        gloss=_NONE,
    ),
    benches=Benches(colours=_TABLES, contrast=Range(0.04, 0.16), textures=(), fine=_ONE),
    clutter=Clutter(dull=3, alike=_NONE, near=_NONE),
    hands=Hands(
        skins=_SKINS, gloves=_GLOVES, gloved=0.3, size=_ONE, tools=("screwdriver",), one=0.0
    ),
    cameras=(HEAD,),
    exposure=_ONE,
    shutter=_NONE,
    lens=_NONE,
    noise=Range(0.004, 0.014),
    jpeg=Range(92, 92),
)
BENCH = World(
    name="bench",
    # Pauses: 56 of 9 assemblies of IndustReal (10 frames a second; median 49 s, spread of the
    # logarithm .54 within and .22 between recordings) and 306 of 20 of MECCANO (12 a second; 63 s,
    # .90 and .31). Steps done together: 31 of 55 changes of IndustReal. Wrong: 9 of its 86
    # installations, 18 of MECCANO's 375; corrected: 4 of the 9, and all of the 18.
    # Half of the false steps that decoders see in IndustReal's detections are parts that are on,
    # but not tight: `early`.
    habits=Habits(
        pauses=(48.0, 0.25, 0.65),
        together=0.45,
        wrong=0.1,
        corrected=0.7,
        early=0.3,
        early_s=(12.0, 0.8),
    ),
    hidden=GLIMPSES,
    nearly_right=1 / 3,
    paint=Paint(Range(-0.025, 0.025), Range(-0.3, 0.1), Range(-0.2, 0.2)),
    lights=Lights(
        level=Range(0.4, 1.2),
        warmth=Range(-0.22, 0.28),
        ambient=Range(0.3, 0.7),
        drift=Range(0, 0.3),
        lean=0.6,
        gloss=_NONE,
    ),
    benches=Benches(
        colours=_MORE_TABLES,
        contrast=Range(0.05, 0.35),
        textures=_TEXTURES,
        fine=Range(0.7, 1.5),
    ),
    clutter=Clutter(dull=4, alike=Range(3, 9), near=Range(2.9, 4.8)),
    hands=Hands(
        skins=_MORE_SKINS,
        gloves=_MORE_GLOVES,
        gloved=0.35,
        size=Range(0.9, 1.2),
        tools=("screwdriver", "wrench", "hammer", "pliers"),
        one=0.0,
    ),
    cameras=(View(Range(45, 70), Range(-30, 30), Range(6.2, 8.2), wander=1.6),),
    exposure=Range(0.75, 1.35),
    shutter=Range(0.02, 0.3),
    lens=Range(-0.04, 0.09),
    noise=Range(0.006, 0.035),
    jpeg=Range(55, 95),
)
ANYWHERE = dataclasses.replace(
    TOY,
    name="anywhere",
    paint=Paint(Range(-0.02, 0.02), Range(-0.2, 0.1), Range(-0.15, 0.15)),
    lights=Lights(
        level=Range(0.55, 1.2),
        warmth=Range(-0.2, 0.2),
        ambient=Range(0.3, 0.85),
        drift=_NONE,
        lean=0.6,
        gloss=Range(0, 0.6),
    ),
    benches=Benches(
        colours=(*_MORE_TABLES, *_PAINTED),
        contrast=Range(0.03, 0.4),
        textures=(*_TEXTURES, "grains"),
        fine=Range(0.7, 2),
    ),
    clutter=Clutter(dull=3, alike=Range(0, 4), near=Range(3.2, 4.8)),
    hands=dataclasses.replace(BENCH.hands, one=0.3),
    # Nobody films from where the worker stands but with a camera that is worn, or from above.
    cameras=(
        View(Range(45, 70), Range(-32, 32), Range(6.0, 8.0)),
        View(Range(10, 50), Range(40, 320), Range(6.0, 8.6), wander=0.0),
        View(Range(50, 86), Range(-180, 180), Range(6.4, 8.6), wander=0.0),
    ),
    exposure=Range(0.8, 1.25),
    shutter=Range(0, 0.2),
    lens=Range(-0.03, 0.07),
    noise=Range(0.004, 0.035),
    jpeg=Range(60, 95),
    also=TOY,
)
WORLDS = {world.name: world for world in (TOY, BENCH, ANYWHERE)}
