"""Drawings to PNG: rasterize SVG, put transparent images on white."""

import importlib.util
import io

from PIL import Image, ImageChops


def require_package(module: str, package: str) -> None:
    """Raise a ValueError with the install command if the package is missing."""
    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"This data set needs the package '{package}', which is not installed: "
            f"run `pip install {package}` (or `pip install 'mmjax[emoji]'`)."
        )


def centered(image: Image.Image, size: int) -> Image.Image:
    """RGBA, `size` × `size` pixels: the image centered, transparent around, aspect ratio kept."""
    image = image.convert("RGBA")
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), (255, 255, 255, 0))
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return canvas


def png(image: Image.Image) -> bytes:
    """The image as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=4)
    return out.getvalue()


def on_white(image: Image.Image, size: int) -> bytes:
    """RGB PNG, `size` × `size` pixels: the image centered on white, keeping its aspect ratio."""
    white = Image.new("RGBA", (size, size), "white")
    return png(Image.alpha_composite(white, centered(image, size)).convert("RGB"))


def render_svg(svg: str, width: int) -> Image.Image:
    """An SVG rendered `width` pixels wide, keeping its aspect ratio (RGBA, transparent background).

    Raises:
      ValueError: it cannot be rendered.
    """
    import resvg_py

    # System fonts would make the pixels depend on the machine; without a resolution, sizes in
    # points or millimeters become zero.
    data = resvg_py.svg_to_bytes(svg_string=svg, width=width, skip_system_fonts=True, dpi=96.0)
    return Image.open(io.BytesIO(data)).convert("RGBA")


def trim(image: Image.Image) -> Image.Image | None:
    """The bounding box of what differs from white in an RGBA image, cropped; None if nothing."""
    white = Image.new("RGBA", image.size, "white")
    shown = Image.alpha_composite(white, image).convert("RGB")
    difference = ImageChops.difference(shown, white.convert("RGB")).convert("L")
    box = difference.point(lambda x: 255 * (x > 16)).getbbox()
    return image.crop(box) if box else None
