"""Serve a page to search an indexed folder and see where models look, to chat, and to segment.

    python -m mmjax.search index ~/Photos
    python -m mmjax.serve                             # or the folder of another index
    python -m mmjax.serve --segment=sam-vit-base      # click on an image, see masks
    python -m mmjax.serve INDEX --chat=runs/llava --tools=calculator,crop   # all on one page

--chat takes a LLaVA with a chat template, --segment a SAM: a run's workdir or a published folder.
With one of them an index is shown only if it is named. By default it listens only on this machine;
see --host. /openapi.json describes its API. Updates of the index are picked up while the server
runs.
"""

# ruff: noqa: E402
from mmjax.process import command, runtime

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("index", {"nargs": "?", "help": "folder of the index [one in the cache]"}),
        ("--model", {"help": "new location of the index's model, if it was moved"}),
        ("--chat", {"help": "a LLaVA to talk with about images"}),
        ("--tools", {"default": "", "help": "that it may call, separated by commas"}),
        ("--segment", {"help": "a SAM to segment images with, by clicks"}),
        ("--host", {"default": "127.0.0.1"}),
        ("--port", {"type": int, "default": 8000}),
    )

import importlib.util
import socket

from mmjax.embedder import open_embedder
from mmjax.photos.default import named_or_default
from mmjax.search.index import open_index
from mmjax.serve.chats import open_chats
from mmjax.serve.decoders import Lanes
from mmjax.serve.segments import open_segments
from mmjax.serve.service import BATCHES, Service

LOOPBACK = ("127.0.0.1", "localhost")


def main() -> None:
    """The command."""
    for package in ("fastapi", "uvicorn", "multipart"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"The package {package} is missing: install it with pip install -e '.[demo]'."
            )
    import uvicorn

    from mmjax.serve import connections
    from mmjax.serve.app import make_app

    if ARGS.tools and not ARGS.chat:
        raise ValueError("--tools are called in a conversation: add --chat=MODEL.")
    other = bool(ARGS.chat or ARGS.segment)
    index = None if other and ARGS.index is None else open_index(ARGS.index)
    listening = _listen(ARGS.host, ARGS.port)
    decoding = Lanes()
    service = index and _service(index, decoding)
    chats = ARGS.chat and open_chats(ARGS.chat, ARGS.tools, decoding)
    segments = ARGS.segment and open_segments(ARGS.segment, decoding)
    print(f"{index.rows:,} images; compiling ..." if index else "compiling ...", flush=True)
    decoding.start()
    for part in filter(None, (service, chats, segments)):
        part.warm_up()
    runtime.release_freed_memory()  # the compiler's
    local = ARGS.host in LOOPBACK
    app = make_app(list(LOOPBACK) if local else ["*"], service, chats or None, segments or None)
    if not local and index:
        print("warning: anyone who can connect to this machine can see the images")
    print(f"http://{ARGS.host}:{listening.getsockname()[1]}", flush=True)
    http = connections.protocol(connections.most_open())
    config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=30, http=http)
    uvicorn.Server(config).run(sockets=[listening])


def _service(index, decoding: Lanes) -> Service:
    model = named_or_default(ARGS.model or index.about["model"])
    embedder = open_embedder(model, BATCHES)
    index.check_model(embedder.fingerprint, model)
    return Service(index, embedder, decoding)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise ValueError(
            f"Cannot listen on {host}:{port} ({error.strerror or error}): use another --port."
        ) from None


if __name__ == "__main__":
    command.run(main)
