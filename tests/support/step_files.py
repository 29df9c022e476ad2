"""A small STEP file (ISO 10303-21), written by hand: a block of flat faces."""

import numpy as np

# The corners of each face, turned outwards; corner 4x + 2y + z of a unit cube.
_FACES = (
    *((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1)),
    *((2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)),
)
_HEAD = """ISO-10303-21;
HEADER;
FILE_DESCRIPTION((''),'2;1');
FILE_NAME('block','2000-01-01T00:00:00',(''),(''),'','','');
FILE_SCHEMA(('AUTOMOTIVE_DESIGN { 1 0 10303 214 1 1 1 1 }'));
ENDSEC;
DATA;
"""
_CONTEXT = (
    "APPLICATION_CONTEXT('automotive design')",
    "APPLICATION_PROTOCOL_DEFINITION('draft','automotive_design',1998,#1)",
    "PRODUCT_CONTEXT('',#1,'mechanical')",
    "PRODUCT('block','block','',(#3))",
    "PRODUCT_DEFINITION_FORMATION('','',#4)",
    "PRODUCT_DEFINITION_CONTEXT('part definition',#1,'design')",
    "PRODUCT_DEFINITION('design','',#5,#6)",
    "PRODUCT_DEFINITION_SHAPE('','',#7)",
    "(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT({unit}.METRE.))",
    "(NAMED_UNIT(*)PLANE_ANGLE_UNIT()SI_UNIT($,.RADIAN.))",
    "(NAMED_UNIT(*)SI_UNIT($,.STERADIAN.)SOLID_ANGLE_UNIT())",
    "UNCERTAINTY_MEASURE_WITH_UNIT(LENGTH_MEASURE(1.E-07),#9,'distance_accuracy_value','')",
    "(GEOMETRIC_REPRESENTATION_CONTEXT(3)GLOBAL_UNCERTAINTY_ASSIGNED_CONTEXT((#12))"
    "GLOBAL_UNIT_ASSIGNED_CONTEXT((#9,#10,#11))REPRESENTATION_CONTEXT('',''))",
)


# Of a solid, a display colour in 0..1, each line of the one before.
_STYLE = (
    "COLOUR_RGB('',{colour})",
    "FILL_AREA_STYLE_COLOUR('',{last})",
    "FILL_AREA_STYLE('',({last}))",
    "SURFACE_STYLE_FILL_AREA({last})",
    "SURFACE_SIDE_STYLE('',({last}))",
    "SURFACE_STYLE_USAGE(.BOTH.,{last})",
    "PRESENTATION_STYLE_ASSIGNMENT(({last}))",
    "STYLED_ITEM('color',({last}),{solid})",
    "MECHANICAL_DESIGN_GEOMETRIC_PRESENTATION_REPRESENTATION('',({last}),#13)",
)


def block(low, high, unit=".MILLI.,", colour=None):
    """The text of a file with a block from corner `low` to corner `high`, each (x, y, z)."""
    lines = [line.format(unit=unit) for line in _CONTEXT]

    def add(text):
        lines.append(text)
        return f"#{len(lines)}"

    def numbers(values):
        return ",".join(f"{float(value)!r}" for value in values)

    corners = [np.where([i >> 2 & 1, i >> 1 & 1, i & 1], high, low) for i in range(8)]
    points = [add(f"CARTESIAN_POINT('',({numbers(corner)}))") for corner in corners]
    faces = []
    for face in _FACES:
        a, b, _, d = (corners[i] for i in face)
        normal = np.sign(np.cross(b - a, d - a))
        ways = [add(f"DIRECTION('',({numbers(way)}))") for way in (normal, np.sign(b - a))]
        axis = add(f"AXIS2_PLACEMENT_3D('',{points[face[0]]},{ways[0]},{ways[1]})")
        plane = add(f"PLANE('',{axis})")
        loop = add(f"POLY_LOOP('',({','.join(points[i] for i in face)}))")
        bound = add(f"FACE_OUTER_BOUND('',{loop},.T.)")
        faces.append(add(f"FACE_SURFACE('',({bound}),{plane},.T.)"))
    shell = add(f"CLOSED_SHELL('',({','.join(faces)}))")
    solid = add(f"FACETED_BREP('',{shell})")
    shape = add(f"FACETED_BREP_SHAPE_REPRESENTATION('',({solid}),#13)")
    add(f"SHAPE_DEFINITION_REPRESENTATION(#8,{shape})")
    last = ""
    for line in _STYLE if colour is not None else ():
        last = add(line.format(colour=numbers(colour), last=last, solid=solid))
    body = "".join(f"#{i}={line};\n" for i, line in enumerate(lines, start=1))
    return f"{_HEAD}{body}ENDSEC;\nEND-ISO-10303-21;\n"
