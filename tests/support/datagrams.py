"""Servers and clients of datagrams: endpoints that answer with their name, and clients that count what is lost."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType

from tests.support.waiting import eventually

_STEP = 0.005  # seconds between two looks of the clients at their watches
_PAUSE = 0.1  # of a client between an answer and its next question
_PATIENCE = 3.0  # seconds in which an answer comes on a busy machine, unless it is lost


class Namesakes:
    """Endpoints that answer each datagram with their own number and the datagram. A context manager; addresses: theirs.
    heard: by endpoint, from how many addresses and ports."""

    def __init__(self, count: int) -> None:
        self._socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        for sock in self._socks:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        self.addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in self._socks]
        self.heard: list[Counter[tuple[str, int]]] = [Counter() for _ in range(count)]
        self._leaving = False
        self._thread = threading.Thread(target=self._run, name="namesakes", daemon=True)

    def _run(self) -> None:
        numbers = {sock.fileno(): number for number, sock in enumerate(self._socks)}
        with select.epoll() as epoll:
            for fd in numbers:
                epoll.register(fd, select.EPOLLIN)
            while not self._leaving:
                for fd, _ in epoll.poll(0.05):
                    self._answer(numbers[fd])

    def _answer(self, number: int) -> None:
        sock = self._socks[number]
        while True:
            try:
                data, client = sock.recvfrom(65535)
            except BlockingIOError:
                return
            self.heard[number][client] += 1
            sock.sendto(b"%d " % number + data, client)

    def __enter__(self) -> Namesakes:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leaving = True
        self._thread.join(10)
        for sock in self._socks:
            sock.close()


@dataclass(slots=True)
class Caller:
    sock: socket.socket
    port: int
    number: int = 0  # of the question that waits for its answer
    asked_at: float = 0.0
    tries: int = 0
    next_at: float = 0.0
    answers: int = 0
    endpoints: set[int] = field(default_factory=set)


class Callers:
    """Clients that ask one question after the other, each from a port of its own. A context manager, which asks while
    it is open. lost: questions that were not answered after so many tries; repeated: those that were asked again."""

    def __init__(self, address: str, count: int, tries: int = 1) -> None:
        host, _, port = address.rpartition(":")
        self._tries = tries
        self.callers = []
        for number in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.connect((host, int(port)))
            sock.setblocking(False)
            self.callers.append(Caller(sock, sock.getsockname()[1], next_at=number * _PAUSE / count))
        self.lost: list[int] = []  # ports
        self.repeated: list[int] = []
        self._leaving = False
        self._thread = threading.Thread(target=self._run, name="callers", daemon=True)

    def _run(self) -> None:
        by_fd = {caller.sock.fileno(): caller for caller in self.callers}
        began = time.monotonic()
        for caller in self.callers:
            caller.next_at += began
        with select.epoll() as epoll:
            for fd in by_fd:
                epoll.register(fd, select.EPOLLIN)
            while not self._leaving:
                for fd, _ in epoll.poll(_STEP):
                    self._answered(by_fd[fd])
                now = time.monotonic()
                for caller in self.callers:
                    if caller.asked_at:
                        self._wait(caller, now)
                    elif caller.next_at <= now:
                        caller.number += 1
                        caller.tries = 1
                        self._ask(caller, now)

    def _ask(self, caller: Caller, now: float) -> None:
        caller.asked_at = now
        caller.sock.send(b"%d" % caller.number)

    def _wait(self, caller: Caller, now: float) -> None:
        if now < caller.asked_at + _PATIENCE:
            return
        if caller.tries < self._tries:
            caller.tries += 1
            self.repeated.append(caller.port)
            self._ask(caller, now)
        else:
            self.lost.append(caller.port)
            caller.asked_at = 0.0

    def _answered(self, caller: Caller) -> None:
        while True:
            try:
                endpoint, _, number = caller.sock.recv(100).partition(b" ")
            except BlockingIOError:
                return
            caller.endpoints.add(int(endpoint))
            if int(number) == caller.number and caller.asked_at:
                caller.answers += 1
                caller.asked_at = 0.0
                caller.next_at = time.monotonic() + _PAUSE

    def goes_on(self, answers: int = 2) -> None:
        """Wait until each of them has had so many more answers."""
        had = [caller.answers for caller in self.callers]
        eventually(
            lambda: all(now.answers >= before + answers for now, before in zip(self.callers, had, strict=True)),
            f"{answers} more answers for each; lost: {len(self.lost)}",
        )

    def moved(self) -> list[int]:
        """The ports of those who were answered by more than one endpoint."""
        return [caller.port for caller in self.callers if len(caller.endpoints) > 1]

    def clean(self) -> None:
        """Raises AssertionError when anything was lost, or anybody was moved to another endpoint."""
        assert not self.lost, f"{len(self.lost)} questions were lost"
        assert not self.moved(), f"{len(self.moved())} clients were moved to another endpoint"

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leaving = True
        self._thread.join(10)
        for caller in self.callers:
            caller.sock.close()
