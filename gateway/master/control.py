"""The control socket: how `gateway status`, `reload`, `stop` ... speak to the master.

One JSON object in a line each way. The socket has mode 0600: who may write to it may stop the gateway. The answer can
come much later than the question (a reload waits for its outcome); the master's loop goes on meanwhile.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import GatewayError, StartError
from gateway.master.events import Events

Reply = Callable[[dict[str, Any]], None]
Answer = Callable[[dict[str, Any], Reply], None]

_LONGEST = 4096  # bytes of a question


class Control:
    """The master's side. `answer(question, reply)` is called for each question."""

    def __init__(self, path: str, events: Events, answer: Answer) -> None:
        self.path = path
        self._events = events
        self._answer = answer
        self._sock = _listen(path)
        self._inode = os.stat(path).st_ino
        events.watch(self._sock, self._accept)

    def _accept(self) -> None:
        try:
            peer, _ = self._sock.accept()
        except OSError:
            return
        peer.setblocking(False)
        heard = bytearray()

        def read() -> None:
            try:
                data = peer.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            heard.extend(data)
            if b"\n" in heard:
                self._events.unwatch(peer)
                self._ask(bytes(heard), peer)
            elif not data or len(heard) > _LONGEST:
                self._events.unwatch(peer)
                peer.close()

        self._events.watch(peer, read)

    def _ask(self, line: bytes, peer: socket.socket) -> None:
        def reply(message: dict[str, Any]) -> None:
            try:
                peer.settimeout(1.0)
                peer.sendall(msgspec.json.encode(message) + b"\n")
            except OSError:
                pass
            peer.close()

        try:
            question = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            reply({"ok": False, "error": "not a question"})
            return
        self._answer(question, reply)

    def close(self) -> None:
        """Remove the socket's file if it is still ours."""
        self._sock.close()
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except OSError:
            pass

    def close_in_child(self) -> None:
        self._sock.close()


def _listen(path: str) -> socket.socket:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if os.path.exists(path):
            _replace_stale(path)
        sock = socket.socket(socket.AF_UNIX)
        old = os.umask(0o177)  # the file appears with its final mode: no moment at which others could connect
        try:
            sock.bind(path)
        finally:
            os.umask(old)
        sock.listen(16)
        sock.setblocking(False)
    except OSError as error:
        raise StartError(f"cannot make the control socket {path}: {(error.strerror or str(error)).lower()}") from None
    return sock


def _replace_stale(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise StartError(f"cannot make the control socket {path}: another gateway answers there")


class ControlError(GatewayError):
    """The master can't be asked."""


def ask(path: str, question: dict[str, Any], timeout: float | None = 10.0) -> dict[str, Any]:
    """The other side: put a question to a running master. Raises ControlError with one plain sentence."""
    heard = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(path)
            sock.sendall(msgspec.json.encode(question) + b"\n")
            while not heard.endswith(b"\n"):
                data = sock.recv(65536)
                if not data:
                    break
                heard.extend(data)
    except FileNotFoundError:
        raise ControlError(f"no gateway is running: there is no control socket {path}") from None
    except ConnectionRefusedError:
        raise ControlError(f"no gateway is running: nobody answers at {path}") from None
    except TimeoutError:
        raise ControlError(f"the gateway at {path} does not answer") from None
    except OSError as error:
        raise ControlError(f"cannot ask the gateway at {path}: {(error.strerror or str(error)).lower()}") from None
    if not heard.endswith(b"\n"):
        raise ControlError(f"the gateway at {path} ended before it answered")
    answer: dict[str, Any] = msgspec.json.decode(bytes(heard))
    return answer
