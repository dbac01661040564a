"""One connection, or one session of datagrams, of a listener that does not speak HTTP, as everybody involved comes to
know it.

The listener makes it, whoever finds out where it goes adds what it learns, the access log and the metrics read it once,
at the end. For requests there is `exchange.py`.
"""

from __future__ import annotations

from typing import Any


class Session:
    """Facts of one session. Times are seconds of the monotonic clock, durations seconds."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "client",
        "connect_time",
        "destination",
        "endpoint",
        "listener",
        "port",
        "reason",
        "retries",
        "rule",
        "sni",
        "started",
        "upstream",
        "user",
    )

    def __init__(self, listener: Any, client: str, port: int, started: float) -> None:
        """client, port: its address, or that which a proxy in front has told; "unix" and 0 for a unix socket."""
        self.listener = listener  # the listener's own entry in the assembly; opaque here
        self.client = client
        self.port = port
        self.started = started
        self.user = ""  # who the client has proved to be
        self.destination = ""  # where it asked to go, as it said: "example.com:443"; "" where the upstream decides
        self.sni = ""  # the name in its TLS ClientHello, where that was looked at
        self.upstream = ""
        # The endpoint's name, as `gateway endpoint list` shows it; for a proxy's client the address that was dialled.
        self.endpoint = ""
        self.connect_time = 0.0
        self.retries = 0  # endpoints that were tried in vain before
        self.bytes_in = 0  # from the client
        self.bytes_out = 0  # to the client
        self.reason = ""  # how it ended, a code of the table in `reasons.py`; "" when both sides were done
        self.rule = ""  # what of an egress forbade it: "deny 10.0.0.0/8"
