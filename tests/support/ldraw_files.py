"""A small library of LDraw, written for the tests: units are LDU, y points down."""

CONFIG = """0 LDraw.org Configuration File
0 !COLOUR Red CODE 4 VALUE #FF0000 EDGE #000000
0 !COLOUR Dark_Blue CODE 1 VALUE #000080 EDGE #000000
0 !COLOUR Main_Colour CODE 16 VALUE #FFFF80 EDGE #333333
0 !COLOUR Clear CODE 40 VALUE #635F52 EDGE #171316 ALPHA 128
"""
# The six sides of a cube from −1 to 1, each counter-clockwise from outside.
SIDES = (
    "-1 -1 -1 -1 1 -1 1 1 -1 1 -1 -1",
    "-1 -1 1 1 -1 1 1 1 1 -1 1 1",
    "-1 -1 -1 1 -1 -1 1 -1 1 -1 -1 1",
    "-1 1 -1 -1 1 1 1 1 1 1 1 -1",
    "-1 -1 -1 -1 -1 1 -1 1 1 -1 1 -1",
    "1 -1 -1 1 1 -1 1 1 1 1 -1 1",
)


def cube(winding="CCW"):
    """The text of a file with a cube; clockwise ones say so."""
    lines = ["0 ~Cube", f"0 BFC CERTIFY {winding}"]
    for side in SIDES:
        numbers = side.split()
        points = [" ".join(numbers[i : i + 3]) for i in range(0, 12, 3)]
        lines.append(" ".join(["4 16", *(points if winding == "CCW" else points[::-1])]))
    return "\n".join(lines) + "\n"


def place(name, colour=16, at=(0, 0, 0), scale=(1, 1, 1)):
    """A line that places a file, scaled along its axes."""
    x, y, z = scale
    where = " ".join(map(str, at))
    return f"1 {colour} {where} {x} 0 0 0 {y} 0 0 0 {z} {name}\n"


def write(folder, files=None):
    """Writes the library into a folder, with these files (name: text) besides."""
    texts = {
        "LDConfig.ldr": CONFIG,
        "p/Cube.dat": cube(),
        "p/cubecw.dat": cube("CW"),
        "parts/s/half.dat": place("cube.dat", scale=(10, 4, 10)),
        "parts/block.dat": "0 Block 2 x  1\n0 BFC CERTIFY CCW\n" + place("S\\HALF.DAT"),
        **(files or {}),
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
