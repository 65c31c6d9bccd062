"""Buckets of emulators, behind a proxy that can fail: `gs` and `s3` start one for this process."""

import contextlib
import functools
import http.client
import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

import pytest

BUCKET = "bucket"
PRIVATE = "private"  # to which the account has no permission


class Fault(NamedTuple):
    """What happens to the next requests whose "METHOD path" matches."""

    pattern: str
    status: int = 0  # the answer; 0: the connection is lost
    lost_answer: bool = False  # only after the store has done what was asked
    seconds: float = 0.0  # only late, and then as it should be
    held: bool = False  # nothing until `failing` ends, and then the connection is lost


class Proxy(ThreadingHTTPServer):
    """Passes requests on to an emulator, except those that `faults` match; one each.

    It also keeps the generations and preconditions of gs, which gcp-storage-emulator ignores, and
    tells the generation of what is read, which it does not.
    """

    daemon_threads = True

    def __init__(self, port: int):
        self.target, self.faults, self.requests = port, [], []
        self.over = threading.Event()
        self.lock = threading.RLock()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextlib.contextmanager
    def failing(self, *faults: Fault):
        """Let requests fail while inside, and expect that every fault was met."""
        self.faults = list(faults)
        self.over.clear()
        try:
            yield
            assert not self.faults, f"never met: {self.faults}"
        finally:
            self.faults = []
            self.over.set()

    def fault_of(self, line: str) -> Fault | None:
        with self.lock:
            self.requests.append(line)
            found = next((f for f in self.faults if re.search(f.pattern, line)), None)
            if found:
                self.faults.remove(found)
            return found

    def ask(self, method, path, body=None, headers=()):
        """(status, headers, body) of the emulator's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        found = answer.status, answer.getheaders(), answer.read()
        connection.close()
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _pass(self):
        body = self._body()
        fault = self.server.fault_of(f"{self.command} {self.path}")
        if fault and fault.held:
            self.server.over.wait()
            return self._drop()
        if fault and fault.seconds:
            time.sleep(fault.seconds)
        elif fault and fault.status:
            return self._answer(fault.status, [], b"{}")
        elif fault and not fault.lost_answer:
            return self._drop()
        if f"/{PRIVATE}" in self.path:
            return self._answer(403, [], b'{"error": {"code": 403, "message": "no permission"}}')
        with self.server.lock:
            now = self._generation(body)
            wanted = self._query().get("ifGenerationMatch", [now])[0]
            known = self._query().get("ifGenerationNotMatch", [None])[0]
            if now and self._query().get("generation", [now])[0] != now:
                return self._answer(404, [], b'{"error": {"code": 404, "message": "not found"}}')
            if wanted != now:
                return self._answer(412, [], b'{"error": {"code": 412, "message": "changed"}}')
            if known and known == now:
                return self._answer(304, [], b"")
            status, headers, content = self.server.ask(
                self.command, self.path, body, self._headers()
            )
        if self.command == "GET" and now:
            headers = [*headers, ("x-goog-generation", now)]
        if fault and fault.lost_answer:
            return self._drop()
        return self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _pass

    def _drop(self):
        self.close_connection = True
        self.connection.close()

    def _headers(self):
        skipped = ("transfer-encoding", "connection", "expect")
        return [(k, v) for k, v in self.headers.items() if k.lower() not in skipped]

    def _body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _query(self):
        return parse_qs(urlsplit(self.path).query)

    def _generation(self, body: bytes) -> str | None:
        """The generation of the object of gs that is asked for, "0" if there is none."""
        found = re.search(r"/b/([^/]+)/o(/(.+))?$", urlsplit(self.path).path)
        if found is None:
            return None
        bucket, _, name = found.groups()
        if name is None and "ifGenerationMatch" not in self._query():
            return None  # a listing, or a file that is written in any case
        named = re.search(rb'"name": ?"([^"]+)"', body)
        name = name or quote((self._query().get("name") or [named[1].decode()])[0], safe="")
        status, _, about = self.server.ask("GET", f"/storage/v1/b/{bucket}/o/{name}")
        return json.loads(about)["generation"] if status == 200 else "0"

    def _answer(self, status, headers, body):
        self.send_response_only(status)
        for key, value in headers:
            if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(key, value)
        if self.command == "HEAD":
            body = b""
            self.send_header("Content-Length", dict(headers).get("Content-Length", "0"))
        else:
            self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):  # who asked was killed
            self.end_headers()
            self.wfile.write(body)


@functools.cache
def gs() -> Proxy:
    """The proxy of `gs://bucket`; skips the test where a package is missing."""
    try:
        import gcsfs  # noqa: F401
        from gcp_storage_emulator.server import create_server
    except ImportError as error:
        pytest.skip(f"gs:// is tested with gcsfs and gcp-storage-emulator ({error})")
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server._api.daemon = True  # else pytest would wait for it at the end
    server.start()
    proxy = Proxy(server._api._httpd.server_address[1])
    os.environ["STORAGE_EMULATOR_HOST"] = os.environ["TENSORSTORE_GCS_HTTP_URL"] = proxy.url
    return proxy


@functools.cache
def s3() -> Proxy:
    """The proxy of `s3://bucket`; skips the test where a package is missing."""
    try:
        import s3fs  # noqa: F401
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        pytest.skip(f"s3:// is tested with s3fs and moto's server ({error})")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    proxy = Proxy(server._server.port)
    os.environ |= {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    assert proxy.ask("PUT", f"/{BUCKET}")[0] == 200
    return proxy
