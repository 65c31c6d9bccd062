"""The endpoints of an index: search, classification and maps."""

from typing import Annotated

from fastapi import FastAPI, Form, Query, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from mmjax.serve.service import MAX_HITS, AttentionMaps, Found, LabelProbability, MatchMap, Service

Name = Annotated[str, Form(description="or the name of an image of the index")]
Count = Annotated[int, Query(ge=1, le=MAX_HITS)]


async def image_of(service: Service | None, file: UploadFile | None, name: str) -> bytes:
    """The bytes of an upload or of an image of the index.

    Raises:
      ValueError: neither or both are given, or there is no such image.
    """
    if bool(file) == bool(name):
        raise ValueError("Give one of file (an upload) and image (a name of the index).")
    if file:
        return await file.read()
    if service is None:
        raise ValueError("There is no index: give file (an upload).")
    return await run_in_threadpool(service.image, name)


def add(app: FastAPI, service: Service) -> None:
    """Add them to an application."""

    @app.get("/api/sample")
    async def sample(k: Count = 30) -> list[Found]:
        """Some images of the index, evenly spaced over it; their scores are 0."""
        return await run_in_threadpool(service.sample, k)

    @app.get("/api/search")
    async def search_words(words: str, k: Count = 30) -> list[Found]:
        """The images most similar to a text."""
        return await service.search_text(words, k)

    @app.post("/api/search")
    async def search_image(
        file: UploadFile | None = None, image: Name = "", k: Count = 30
    ) -> list[Found]:
        """The images most similar to an uploaded one, or to one of the index."""
        return await service.search_image(await image_of(service, file, image), k)

    @app.post("/api/classify")
    async def classify(
        labels: Annotated[str, Form(description="separated by commas")],
        file: UploadFile | None = None,
        image: Name = "",
        templates: Annotated[str, Form(description="name of the prompt templates")] = "plain",
    ) -> list[LabelProbability]:
        """Zero-shot classification: the labels, most probable first."""
        return await service.classify(await image_of(service, file, image), labels, templates)

    @app.post("/api/attention")
    async def attention(
        file: UploadFile | None = None,
        image: Name = "",
        words: Annotated[str, Form(description="text for the occlusion maps")] = "",
    ) -> AttentionMaps:
        """Attention rollout, attention per head, and occlusion maps of the text and its words."""
        return await service.attention(await image_of(service, file, image), words)

    @app.post("/api/match")
    async def match(
        result: Annotated[str, Form(description="the name of an image of the index")],
        words: Annotated[str, Form(description="a text; or else file or image")] = "",
        file: UploadFile | None = None,
        image: Name = "",
    ) -> MatchMap:
        """Which parts of an image of the index match a query: an occlusion map."""
        if words and (file or image):
            raise ValueError("Give one of words, file (an upload) and image (a name of the index).")
        return await service.match(result, words or await image_of(service, file, image))

    @app.get("/api/image/{name}", response_class=Response)
    async def thumbnail(name: str, size: Annotated[int, Query(ge=16, le=1024)] = 256) -> Response:
        """An image of the index as WebP, its longer side at most `size` pixels."""
        data = await service.run_thumbnail(name, size)
        kept = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(data, media_type="image/webp", headers=kept)
