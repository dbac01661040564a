"""A name server that says what it is told to: a thread on a free loopback port, UDP and, for what is too long, TCP.

    server.records["app.test", "A"] = ["127.0.0.1", "127.0.0.2"]
    server.ttl = 1
    server.says["app.test"] = "SERVFAIL"    # or NXDOMAIN, REFUSED, "" for silence

A name without records does not exist; one with records of another type has none of this one. An alias is a record of
the type CNAME, which is followed as a resolver does unless `follows` is False.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections import Counter
from types import TracebackType

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

_MOST = 512  # bytes by UDP


class DnsServer:
    """asked: how often each question came. A context manager; `stop` and `start` again take place on the same port."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.says: dict[str, str] = {}
        self.ttl = 1
        self.follows = True
        self.asked: Counter[tuple[str, str]] = Counter()
        self.port = 0
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> DnsServer:
        self._udp, self._tcp = self._both()
        self.port = self._udp.getsockname()[1]
        self._leave, self._left = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="dns", daemon=True)
        self._thread.start()
        return self

    def _both(self) -> tuple[socket.socket, socket.socket]:
        """A port that is free in both protocols."""
        for _ in range(50):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind(("127.0.0.1", self.port))
            try:
                return udp, socket.create_server(udp.getsockname())
            except OSError:
                udp.close()
        raise AssertionError("no port is free for both UDP and TCP")

    def stop(self) -> None:
        """Close the port: who asks is refused."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._leave.close()
            thread.join(10)
            for sock in (self._udp, self._tcp, self._left):
                sock.close()

    def __enter__(self) -> DnsServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._udp, self._tcp, self._left):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._left:
                        return
                    if key.fileobj is self._udp:
                        self._by_udp()
                    else:
                        self._by_tcp()

    def _by_udp(self) -> None:
        wire, client = self._udp.recvfrom(65535)
        answer = self._answer(wire)
        if len(answer) > _MOST:
            short = dns.message.make_response(dns.message.from_wire(wire))
            short.flags |= dns.flags.TC
            answer = short.to_wire()
        if answer:
            self._udp.sendto(answer, client)

    def _by_tcp(self) -> None:
        client, _ = self._tcp.accept()
        with client:
            client.settimeout(5)
            size = int.from_bytes(client.recv(2, socket.MSG_WAITALL), "big")
            answer = self._answer(client.recv(size, socket.MSG_WAITALL))
            client.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, wire: bytes) -> bytes:
        """b"" for silence."""
        query = dns.message.from_wire(wire)
        [question] = query.question
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        response = dns.message.make_response(query, recursion_available=True)
        says = self.says.get(name)
        if says is not None:
            if not says:
                return b""
            response.set_rcode(dns.rcode.from_text(says))
            return response.to_wire(max_size=65535)
        known = {known for known, _ in self.records}
        if name not in known:
            response.set_rcode(dns.rcode.NXDOMAIN)
        while True:
            alias = self.records.get((name, "CNAME"))
            if alias is None:
                break
            response.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", "CNAME", alias[0]))
            if not self.follows:
                return response.to_wire(max_size=65535)
            name = alias[0].rstrip(".")
        if records := self.records.get((name, kind)):
            response.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", kind, *records))
        return response.to_wire(max_size=65535)
