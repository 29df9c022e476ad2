import zipfile

_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" '
    'ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
_RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)
_CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
_MATERIAL = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"


def write(path, resources, build, unit="millimeter"):
    model = (
        f'<?xml version="1.0"?><model unit="{unit}" xmlns="{_CORE}" xmlns:m="{_MATERIAL}">'
        f"<resources>{resources}</resources><build>{build}</build></model>"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("[Content_Types].xml", _TYPES)
        file.writestr("_rels/.rels", _RELATIONS)
        file.writestr("3D/3dmodel.model", model)


def mesh(vertices, faces, properties=None):
    """A <mesh>; of each face perhaps its attributes of colour, such as `pid="5" p1="0"`."""
    points = "".join(f'<vertex x="{x:g}" y="{y:g}" z="{z:g}"/>' for x, y, z in vertices)
    triangles = "".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" {more}/>'
        for (a, b, c), more in zip(faces, properties or [""] * len(faces), strict=True)
    )
    return f"<mesh><vertices>{points}</vertices><triangles>{triangles}</triangles></mesh>"


def item(number, move=(0, 0, 0), element="item"):
    """A line of <build>, or of <components>, that places an object."""
    shift = " ".join(f"{value:g}" for value in move)
    return f'<{element} objectid="{number}" transform="1 0 0 0 1 0 0 0 1 {shift}"/>'
