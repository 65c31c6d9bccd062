"""Single elements of an SVG drawing, each rendered alone on a transparent background."""

import copy
import gzip
import xml.etree.ElementTree as ET
from pathlib import Path

from PIL import Image

from mmjax.data.builders.drawing import render_svg

_SVG = "{http://www.w3.org/2000/svg}"
_FOUND = 1536  # pixels of the width in which an element is looked for, three pages wide


def read_svg(path: Path) -> ET.Element:
    """The root of an SVG file, which may be compressed (`.svgz`)."""
    data = path.read_bytes()
    return ET.fromstring(gzip.decompress(data) if path.suffix == ".svgz" else data)


def render_element(root: ET.Element, name: str, size: int) -> Image.Image | None:
    """The element of id `name`, cropped to what it draws, its longer side `size` pixels (RGBA);
    None if it draws nothing. It may be beside the page, by up to a page on each side.

    Raises:
      ValueError: no such element, or a drawing that cannot be rendered.
    """
    drawing = _alone(root, name)
    x, y, width, height = _page(root)
    around = [x - width, y - height, 3 * width, 3 * height]
    box = _render(drawing, around, _FOUND).getchannel("A").getbbox()
    if box is None:
        return None
    unit = 3 * width / _FOUND
    margin = 2  # pixels of the search: its edges may be rounded
    left, top = around[0] + (box[0] - margin) * unit, around[1] + (box[1] - margin) * unit
    wide, high = ((box[i + 2] - box[i] + 2 * margin) * unit for i in (0, 1))
    image = _render(drawing, [left, top, wide, high], round(2 * size * wide / max(wide, high)))
    box = image.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    scale = size / max(image.size)
    return image.resize(
        [max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS
    )


def _alone(root: ET.Element, name: str) -> ET.Element:
    """A copy in which all else is a definition: not drawn, but still there to be referred to."""
    root = copy.deepcopy(root)
    parent = {child: element for element in root.iter() for child in element}
    kept = next((element for element in root.iter() if element.get("id") == name), None)
    if kept is None:
        raise ValueError(f"the drawing has no element '{name}'")
    while kept in parent:
        for place, child in enumerate(list(parent[kept])):
            if child is not kept and child.tag not in (f"{_SVG}defs", f"{_SVG}style"):
                parent[kept].remove(child)
                unseen = ET.Element(f"{_SVG}defs")
                unseen.append(child)
                parent[kept].insert(place, unseen)
        kept = parent[kept]
    return root


def _page(root: ET.Element) -> list[float]:
    if root.get("viewBox"):
        return [float(side) for side in root.get("viewBox").split()]
    return [0.0, 0.0, float(root.get("width")), float(root.get("height"))]


def _render(root: ET.Element, box: list[float], width: int) -> Image.Image:
    width = max(width, 1)
    root.set("viewBox", " ".join(map(str, box)))
    # In pixels of the result: the renderer rounds the size of the drawing to whole units.
    root.set("width", str(width))
    root.set("height", str(max(1, round(width * box[3] / box[2]))))
    return render_svg(ET.tostring(root, encoding="unicode"), width)
