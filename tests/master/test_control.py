"""The control socket: what is in its way, who asks, who answers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StartError
from gateway.master.control import Control, ControlError, ask
from gateway.master.events import Events


class _Loop:
    """As much of a master's loop as a control socket needs: it remembers what is to be watched."""

    def __init__(self) -> None:
        self.watched: dict[int, object] = {}

    def watch(self, sock: socket.socket, handler: object) -> None:
        self.watched[sock.fileno()] = handler

    def unwatch(self, sock: socket.socket) -> None:
        self.watched.pop(sock.fileno(), None)


def control(path: Path) -> Control:
    events: Events = _Loop()  # type: ignore[assignment]
    return Control(str(path), events, lambda question, reply: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.mark.parametrize("content", ["", "precious"])
def test_a_file_that_is_no_socket_is_left_alone(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(StartError, match="a file that is not a socket is in the way"):
        control(path)
    assert path.read_text() == content


def test_what_a_dead_gateway_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    made = control(path)
    assert path.stat().st_mode & 0o777 == 0o600
    made.close()
    assert not path.exists()


def test_one_that_is_too_busy_to_answer_is_alive(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as asks:
        busy.bind(str(path))
        busy.listen(0)
        asks.connect(str(path))
        with pytest.raises(StartError, match="another gateway answers there"):
            control(path)
        assert path.exists()


def test_without_a_descriptor_left_whoever_asks_is_sent_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the loop would be told of them again and again."""
    made = control(path)
    accept = made._sock.accept
    with socket.socket(socket.AF_UNIX) as asks:
        asks.settimeout(5)
        asks.connect(str(path))

        class Full:
            """A socket in a process whose table of descriptors is full but for one that was just given back."""

            tries = 0

            def accept(self) -> tuple[socket.socket, object]:
                Full.tries += 1
                if Full.tries == 1:
                    raise OSError(24, os.strerror(24))
                assert spare is not None and spare.closed
                return accept()

        spare = made._spare
        monkeypatch.setattr(made, "_sock", Full())
        made._accept()
        monkeypatch.undo()
        assert asks.recv(1) == b""
    assert made._spare is not None and not made._spare.closed
    made.close()


@pytest.fixture
def stranger(path: Path) -> Iterator[list[bytes]]:
    """Something else that listens there and says the first of these to the first who asks."""
    says: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(says[0])

        thread = threading.Thread(target=answer)
        thread.start()
        yield says
        thread.join()


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b"{}\n", b"[1]\n"])
def test_an_answer_that_is_none(path: Path, stranger: list[bytes], said: bytes) -> None:
    stranger.append(said)
    with pytest.raises(ControlError, match="is not a gateway"):
        ask(str(path), {"do": "status"})
