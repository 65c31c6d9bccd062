"""A part of an image, enlarged: what a model looks at more closely."""

import io
import math

from PIL import Image

from mmjax.data.transforms.decode import decode_image

SIDE = 336  # pixels of the longer side of a result


def crop(image: bytes, arguments: str) -> bytes:
    """The part of an image between two corners, as PNG, its longer side enlarged to `SIDE`.

    Args:
      arguments: "x0, y0, x1, y1", each a fraction of the width or height from 0 to 1.

    Raises:
      ValueError: other arguments.
    """
    try:
        x0, y0, x1, y1 = (float(number) for number in arguments.split(","))
    except ValueError:
        raise ValueError(f"'{arguments}' is not x0, y0, x1, y1, four numbers from 0 to 1") from None
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise ValueError(f"'{arguments}' must have 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
    whole = Image.fromarray(decode_image(image))
    box = (
        math.floor(x0 * whole.width),
        math.floor(y0 * whole.height),
        math.ceil(x1 * whole.width),
        math.ceil(y1 * whole.height),
    )
    part = whole.crop(box)
    scale = max(1.0, SIDE / max(part.size))
    size = (max(1, round(scale * part.width)), max(1, round(scale * part.height)))
    file = io.BytesIO()
    part.resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
