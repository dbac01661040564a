"""A server of plain TCP, or TLS, that says everything again, for journeys; it may say who it is first."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from types import TracebackType
from typing import Any


class Talker:
    """A context manager on a free loopback port."""

    def __init__(self, greeting: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                    sock = self.request
                    if tls is not None:
                        sock = stack.enter_context(tls.wrap_socket(sock, server_side=True))
                    sock.sendall(greeting)
                    while data := sock.recv(1 << 16):
                        sock.sendall(data)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Nobody reads it."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Talker:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
