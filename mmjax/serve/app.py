"""The HTTP application: the page, the JSON endpoints, and errors as one sentence."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, StarletteHTTPException
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, Response

from mmjax.serve import chat_api, search_api, segment_api
from mmjax.serve.batcher import Busy
from mmjax.serve.chat_api import CHAT
from mmjax.serve.chats import SECONDS, Chats
from mmjax.serve.limits import Limits
from mmjax.serve.segment_api import CLICKS
from mmjax.serve.segments import MAX_POINTS, NotKept, Segments
from mmjax.serve.service import Service

HERE = Path(__file__).parent
SCRIPTS = ("maps", "panel", "page", "chat", "segment", "tabs")
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in SCRIPTS},
}
# The page may run only its own script and connect only to this server.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def make_app(
    hosts: list[str],
    service: Service | None = None,
    chats: Chats | None = None,
    segments: Segments | None = None,
) -> FastAPI:
    """The application, with a tab for each that is given.

    Args:
      hosts: accepted values of the Host header, as protection against DNS rebinding; ["*"]: all.
    """
    summary = "Search a folder of images, look into models, chat about images, and segment them."
    # FastAPI's documentation pages would load scripts from other servers.
    app = FastAPI(title="mmjax", summary=summary, docs_url=None, redoc_url=None)
    app.add_middleware(Limits, longer={CHAT: SECONDS + 5}, smaller={CLICKS: 2**16})
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

    @app.exception_handler(NotKept)
    async def not_kept(request: Request, error: NotKept) -> JSONResponse:
        return JSONResponse({"error": "The image is not kept any more: send it again."}, 410)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = "/".join(map(str, first["loc"]))
        return JSONResponse({"error": f"{place}: {first['msg']}."}, 422)

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)

    @app.get("/api/about")
    async def about() -> dict[str, Any]:
        """What the page shows: the indexed folder and its model, the chat and the segmentation."""
        return {
            **(service.about() if service else {}),
            "chat": chats and {"model": chats.name, "tools": chats.tools},
            "segment": segments and {"model": segments.name, "points": MAX_POINTS},
        }

    if service:
        search_api.add(app, service)
    if chats:
        chat_api.add(app, chats)
    if segments:
        segment_api.add(app, segments, service)
    return app


def _serve_file(app: FastAPI, address: str, text: str, kind: str) -> None:
    @app.get(address, include_in_schema=False)
    async def file() -> Response:
        return Response(text, media_type=kind, headers=HEADERS)
