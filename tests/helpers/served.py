"""An ASGI application behind a real server."""

import threading
import time

import uvicorn

from mmjax.serve import connections


def served(app, seconds=0.5):
    """The server, which runs until `should_exit` is set, and its address.

    Args:
      seconds: that a header may take.
    """
    kind = connections.protocol(most=40, seconds=seconds)
    config = uvicorn.Config(
        app, port=0, log_level="error", http=kind, lifespan="off", loop="asyncio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    return server, server.servers[0].sockets[0].getsockname()
