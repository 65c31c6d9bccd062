"""Drawings to PNG: rasterise SVG, put transparent pictures on white."""

import importlib.util
import io

from PIL import Image


def require_package(module: str, package: str) -> None:
    """Raise a ValueError that names the missing package and the command that gets it."""
    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"This data set needs the package '{package}', which is not installed: "
            f"run `pip install {package}` (or `pip install 'mmjax[emoji]'`)."
        )


def on_white(png: bytes, size: int) -> bytes:
    """RGB PNG, `size` × `size` pixels: the picture centred on white, its proportions kept."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), "white")
    left, top = (size - picture.width) // 2, (size - picture.height) // 2
    canvas.alpha_composite(picture, (left, top))
    out = io.BytesIO()
    canvas.convert("RGB").save(out, "PNG", compress_level=4)
    return out.getvalue()


def render_svg(svg: str, size: int) -> bytes:
    """RGB PNG, `size` × `size` pixels, of an SVG on white; ValueError if it cannot be drawn."""
    import resvg_py

    # System fonts would make the pixels depend on the machine.
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, skip_system_fonts=True)
    return on_white(png, size)
