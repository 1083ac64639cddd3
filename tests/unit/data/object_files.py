"""Mesh files that are good, odd or hostile, written as text and bytes."""

from pathlib import Path

import numpy as np
from PIL import Image

QUAD = """\
mtllib {mtl}
v -1 -1 0
v 1 -1 0
v 1 1 0
v -1 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl coat
f 1/1 2/2 3/3
f 1/1 3/3 4/4
"""


def top_and_bottom(alpha: int = 255) -> Image.Image:
    """Return a texture that is red above and blue below, as transparent as asked for."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 0], pixels[4:, :, 2], pixels[..., 3] = 255, 255, alpha
    return Image.fromarray(pixels)


def write_quad(
    folder: Path, *, texture: str = "coat.png", mtl: str = "quad.mtl", alpha: int | None = 255
) -> Path:
    """Write a textured square that faces +z; alpha None leaves its texture out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quad.obj").write_text(QUAD.format(mtl=mtl))
    (folder / "quad.mtl").write_text(f"newmtl coat\nKd 1 1 1\nmap_Kd {texture}\n")
    if alpha is not None:
        top_and_bottom(alpha).save(folder / "coat.png")
    return folder / "quad.obj"
