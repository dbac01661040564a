"""The control socket: how `gateway status`, `reload`, `stop` ... speak to the master.

One JSON object in a line each way. The socket has mode 0600: who may write to it may stop the gateway. The answer can
come much later than the question (a reload waits for its outcome); the master's loop goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from gateway.errors import GatewayError, StartError
from gateway.master.events import Events

Reply = Callable[[dict[str, Any]], None]
Answer = Callable[[dict[str, Any], Reply], None]

_LONGEST = 4096  # bytes of a question


class Control:
    """The master's side. `answer(question, reply)` is called for each question.

    inherited: `sockets` of the master before an upgrade, so that nobody who asks meanwhile is sent away.
    """

    def __init__(self, path: str, events: Events, answer: Answer, inherited: Sequence[socket.socket] = ()) -> None:
        self.path = path
        self._events = events
        self._answer = answer
        self._peers: set[socket.socket] = set()  # people who have no answer yet
        self._asking: set[socket.socket] = set()  # those of them whose question we have not wholly heard
        listening, asking = inherited[:1], inherited[1:]
        if listening and not (listening[0].getsockname() == path and Path(path).exists()):
            _remove(listening[0])
            listening = ()
        self._sock = listening[0] if listening else _listen(path)
        self._inode = Path(path).stat().st_ino
        self._spare = _spare()
        events.watch(self._sock, self._accept)
        for peer in asking:
            self._hear(peer)

    @property
    def sockets(self) -> list[socket.socket]:
        """For the successor in an upgrade: the listening one and those of people who are about to ask."""
        return [self._sock, *self._asking]

    def _accept(self) -> None:
        try:
            peer, _ = self._sock.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._send_away()
            return
        peer.setblocking(False)
        self._hear(peer)

    def _send_away(self) -> None:
        """No descriptor is left. Whoever waits would be reported again at once, and again: take one up and hang up."""
        if self._spare is not None:
            self._spare.close()
        with contextlib.suppress(OSError):
            self._sock.accept()[0].close()
        self._spare = _spare()

    def _hear(self, peer: socket.socket) -> None:
        heard = bytearray()
        self._peers.add(peer)
        self._asking.add(peer)

        def read() -> None:
            try:
                data = peer.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            heard.extend(data)
            if b"\n" not in heard and data and len(heard) <= _LONGEST:
                return
            self._events.unwatch(peer)
            self._asking.discard(peer)
            if b"\n" in heard:
                self._ask(bytes(heard), peer)
            else:
                self._dismiss(peer)

        self._events.watch(peer, read)

    def _ask(self, line: bytes, peer: socket.socket) -> None:
        def reply(message: dict[str, Any]) -> None:
            try:
                peer.settimeout(1.0)
                peer.sendall(msgspec.json.encode(message) + b"\n")
            except OSError:
                pass
            self._dismiss(peer)

        try:
            question = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            reply({"ok": False, "error": "not a question"})
            return
        self._answer(question, reply)

    def _dismiss(self, peer: socket.socket) -> None:
        self._peers.discard(peer)
        peer.close()

    def close(self) -> None:
        """Remove the socket's file if it is still ours."""
        self._sock.close()
        if self._spare is not None:
            self._spare.close()
        with contextlib.suppress(OSError):
            if Path(self.path).stat().st_ino == self._inode:
                Path(self.path).unlink()

    def close_in_child(self) -> None:
        for sock in (self._sock, *self._peers):
            sock.close()
        if self._spare is not None:
            self._spare.close()


def _spare() -> BinaryIO | None:
    """A descriptor to give up when none is left."""
    try:
        return Path(os.devnull).open("rb", buffering=0)
    except OSError:
        return None


def _listen(path: str) -> socket.socket:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _clear_stale(Path(path))
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


def _remove(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        Path(sock.getsockname()).unlink()
    sock.close()


def _clear_stale(path: Path) -> None:
    """Remove what a gateway that died has left. Another kind of file is somebody's, named here by mistake; and one that
    listens but is too busy to answer is alive."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StartError(f"cannot make the control socket {path}: a file that is not a socket is in the way")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a full queue answers EAGAIN instead of making us wait
        error = probe.connect_ex(str(path))
    if error == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif error in (0, errno.EAGAIN):
        raise StartError(f"cannot make the control socket {path}: another gateway answers there")
    elif error != errno.ENOENT:
        raise OSError(error, os.strerror(error))


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
    try:
        answer = msgspec.json.decode(bytes(heard), type=dict[str, Any])
    except msgspec.DecodeError:
        answer = {}
    if "ok" not in answer:
        raise ControlError(f"what answers at {path} is not a gateway")
    return answer
