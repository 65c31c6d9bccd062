"""Drawings to PNG: rasterise SVG, put transparent pictures on white."""

import importlib.util
import io

from PIL import Image, ImageChops


def require_package(module: str, package: str) -> None:
    """Raise a ValueError that names the missing package and the command that gets it."""
    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"This data set needs the package '{package}', which is not installed: "
            f"run `pip install {package}` (or `pip install 'mmjax[emoji]'`)."
        )


def centred(picture: Image.Image, size: int) -> Image.Image:
    """RGBA, `size` × `size` pixels: the picture in the middle of nothing, its proportions kept."""
    picture = picture.convert("RGBA")
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), (255, 255, 255, 0))
    canvas.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return canvas


def png(picture: Image.Image) -> bytes:
    """The picture as PNG."""
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=4)
    return out.getvalue()


def on_white(picture: Image.Image, size: int) -> bytes:
    """RGB PNG, `size` × `size` pixels: the picture centred on white, its proportions kept."""
    white = Image.new("RGBA", (size, size), "white")
    return png(Image.alpha_composite(white, centred(picture, size)).convert("RGB"))


def render_svg(svg: str, width: int) -> Image.Image:
    """An SVG at `width` pixels, its height in proportion, on nothing (RGBA).

    Raises:
      ValueError: it cannot be drawn.
    """
    import resvg_py

    # System fonts would make the pixels depend on the machine; without a resolution, sizes in
    # points or millimetres come out as nothing.
    data = resvg_py.svg_to_bytes(svg_string=svg, width=width, skip_system_fonts=True, dpi=96.0)
    return Image.open(io.BytesIO(data)).convert("RGBA")


def trim(picture: Image.Image) -> Image.Image | None:
    """The part of an RGBA picture that differs from white; None where nothing does."""
    white = Image.new("RGBA", picture.size, "white")
    shown = Image.alpha_composite(white, picture).convert("RGB")
    difference = ImageChops.difference(shown, white.convert("RGB")).convert("L")
    box = difference.point(lambda x: 255 * (x > 16)).getbbox()
    return picture.crop(box) if box else None
