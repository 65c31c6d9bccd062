"""An image with the boxes of its detections."""

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mmjax.detection.boxes import Detections


def draw(image: Image.Image, found: Detections, labels: Sequence[str]) -> Image.Image:
    """A copy of the image with a box, a label and a score of each detection, the best on top.

    Each label has a color of its own.
    """
    image = image.convert("RGB")
    canvas, side = ImageDraw.Draw(image), max(image.size)
    width, font = max(1, side // 300), ImageFont.load_default(max(10, side // 50))
    for box, score, label in list(zip(*found, strict=True))[::-1]:
        hue = int(label) * 0.618 % 1  # far from that of the label before
        color = tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, 0.9, 0.85))
        corners = [float(x) for x in box]
        canvas.rectangle(corners, outline=color, width=width)
        text = f"{labels[int(label)]} {score:.2f}"
        left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
        x, y = corners[0], max(0.0, corners[1] - (bottom - top) - 2 * width)
        canvas.rectangle([x, y, x + right - left + 2 * width, y + bottom - top + 2 * width], color)
        canvas.text((x + width - left, y + width - top), text, fill=(255, 255, 255), font=font)
    return image
