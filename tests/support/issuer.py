"""A server of one document, which says what it is told to: a thread on a free loopback port."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class Issuer:
    """asked: requests so far; confirmed: those that were answered 304. A context manager; `stop` and `start` again take
    place on the same port. While `gate` is not set nobody is answered."""

    def __init__(self, body: bytes = b'{"keys": [1]}') -> None:
        self.body = body
        self.status = 200
        self.fields: dict[str, str] = {}
        self.etags = True
        self.asked = self.confirmed = 0
        self.gate = threading.Event()
        self.gate.set()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    def start(self) -> Issuer:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                issuer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="issuer", daemon=True).start()
        return self

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        self.gate.wait(10)
        etag = f'"{hash(self.body)}"'
        status, body = self.status, self.body
        if status == 200 and self.etags and request.headers.get("if-none-match") == etag:
            self.confirmed += 1
            status, body = 304, b""
        request.send_response(status)
        if self.etags:
            request.send_header("ETag", etag)
        for name, value in self.fields.items():
            request.send_header(name, value)
        if status != 304:
            request.send_header("Content-Length", str(len(body)))
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(body)

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Issuer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.gate.set()
        self.stop()
