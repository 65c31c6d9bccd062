"""The HTTP application: the page, the JSON endpoints, and errors as one sentence."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Form, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, Response

from mmjax.serve.batcher import Busy
from mmjax.serve.limits import Limits
from mmjax.serve.service import MAX_HITS, AttentionMaps, Found, LabelProbability, MatchMap, Service

HERE = Path(__file__).parent
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("maps", "panel", "page")},
}
# The page may run only its own script and connect only to this server.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

Name = Annotated[str, Form(description="or the name of an image of the index")]
Count = Annotated[int, Query(ge=1, le=MAX_HITS)]


def make_app(service: Service, hosts: list[str]) -> FastAPI:
    """The application.

    Args:
      hosts: accepted values of the Host header, as protection against DNS rebinding; ["*"]: all.
    """
    summary = "Search a folder of images, classify them, and show attention maps."
    # FastAPI's documentation pages would load scripts from other servers.
    app = FastAPI(title="mmjax", summary=summary, docs_url=None, redoc_url=None)
    app.add_middleware(Limits)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    for address, (name, kind) in PAGE.items():
        _serve_file(app, address, (HERE / name).read_text(encoding="utf-8"), kind)

    @app.exception_handler(ValueError)
    async def bad_request(request: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> JSONResponse:
        sentence = "The server is overloaded: try again in a second."
        return JSONResponse({"error": sentence}, 503, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}."}, 422)

    async def image_of(file: UploadFile | None, name: str) -> bytes:
        if bool(file) == bool(name):
            raise ValueError("Give one of file (an upload) and image (a name of the index).")
        return await file.read() if file else await run_in_threadpool(service.image, name)

    @app.get("/api/about")
    async def about() -> dict[str, Any]:
        """The indexed folder and the model."""
        return service.about()

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
        return await service.search_image(await image_of(file, image), k)

    @app.post("/api/classify")
    async def classify(
        labels: Annotated[str, Form(description="separated by commas")],
        file: UploadFile | None = None,
        image: Name = "",
        templates: Annotated[str, Form(description="name of the prompt templates")] = "plain",
    ) -> list[LabelProbability]:
        """Zero-shot classification: the labels, most probable first."""
        return await service.classify(await image_of(file, image), labels, templates)

    @app.post("/api/attention")
    async def attention(
        file: UploadFile | None = None,
        image: Name = "",
        words: Annotated[str, Form(description="text for the occlusion maps")] = "",
    ) -> AttentionMaps:
        """Attention rollout, attention per head, and occlusion maps of the text and its words."""
        return await service.attention(await image_of(file, image), words)

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
        return await service.match(result, words or await image_of(file, image))

    @app.get("/api/image/{name}", response_class=Response)
    async def thumbnail(name: str, size: Annotated[int, Query(ge=16, le=1024)] = 256) -> Response:
        """An image of the index as WebP, its longer side at most `size` pixels."""
        data = await service.run_thumbnail(name, size)
        kept = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(data, media_type="image/webp", headers=kept)

    return app


def _serve_file(app: FastAPI, address: str, text: str, kind: str) -> None:
    @app.get(address, include_in_schema=False)
    async def file() -> Response:
        return Response(text, media_type=kind, headers=HEADERS)
