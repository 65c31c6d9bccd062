"""Serve a page to search an indexed folder, classify images and show attention maps.

    python -m mmjax.search index ~/Photos
    python -m mmjax.serve                 # or the folder of another index

By default it listens only on this machine; see --host. /openapi.json describes its API.
Updates of the index are picked up while the server runs.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("index", {"nargs": "?", "help": "folder of the index [one in the cache]"}),
        ("--model", {"help": "new location of the model, if it was moved"}),
        ("--host", {"default": "127.0.0.1"}),
        ("--port", {"type": int, "default": 8000}),
    )

import importlib.util
import socket

from mmjax.embedder import open_embedder
from mmjax.photos.default import named_or_default
from mmjax.search.index import open_index
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

    index = open_index(ARGS.index)
    listening = _listen(ARGS.host, ARGS.port)
    model = named_or_default(ARGS.model or index.about["model"])
    embedder = open_embedder(model, BATCHES)
    index.check_model(embedder.fingerprint, model)
    service = Service(index, embedder)
    print(f"{index.rows:,} images; compiling ...", flush=True)
    service.warm_up()
    local = ARGS.host in LOOPBACK
    app = make_app(service, list(LOOPBACK) if local else ["*"])
    if not local:
        print("warning: anyone who can connect to this machine can see the images")
    print(f"http://{ARGS.host}:{listening.getsockname()[1]}", flush=True)
    http = connections.protocol(connections.most_open())
    config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=30, http=http)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise ValueError(
            f"Cannot listen on {host}:{port} ({error.strerror or error}): use another --port."
        ) from None


if __name__ == "__main__":
    command.run(main)
