"""The endpoints of segmentation: an image is sent once, and then clicks on it."""

from typing import Annotated

from fastapi import FastAPI, UploadFile
from pydantic import BaseModel, Field

from mmjax.serve.search_api import Name, image_of
from mmjax.serve.segments import MAX_POINTS, Encoded, Mask, Segments
from mmjax.serve.service import Service

CLICKS = "/api/segment"
Fraction = Annotated[float, Field(ge=0, le=1, description="of the image's width or height")]


class Point(BaseModel):
    """A point on the object, or beside it."""

    x: Fraction
    y: Fraction
    on: bool = True


class Clicks(BaseModel):
    """What one object of an image is: points, and perhaps a box (x0, y0, x1, y1)."""

    image: str = Field(description="its name, from /api/segment/image")
    points: list[Point] = Field([], max_length=MAX_POINTS)
    box: tuple[Fraction, Fraction, Fraction, Fraction] | None = None


def add(app: FastAPI, segments: Segments, service: Service | None) -> None:
    """Add them to an application."""

    @app.post("/api/segment/image")
    async def encode(file: UploadFile | None = None, image: Name = "") -> Encoded:
        """Encode an image, so that clicks may refer to it; it is kept for a while."""
        return await segments.encode(await image_of(service, file, image))

    @app.post(CLICKS)
    async def masks(clicks: Clicks) -> list[Mask]:
        """The masks of points and a box, the best first: three of a single point, else one."""
        points = [(point.x, point.y) for point in clicks.points]
        labels = [int(point.on) for point in clicks.points]
        return await segments.masks(clicks.image, points, labels, clicks.box)
