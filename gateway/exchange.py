"""One request and its answer, as everybody involved comes to know it.

The listener makes it, the router and the proxy add what they learn, the access log and the metrics read it once, at the
end. One object for each request; nothing per-request lives anywhere else.
"""

from __future__ import annotations

from typing import Any

# What `reason` says: nothing, or a code of the table in `reasons.py`.
OK = ""
CLIENT_GONE = "client_gone"


class Exchange:
    """Facts of one request. Times are seconds of the monotonic clock, durations seconds, sizes bytes of body."""

    __slots__ = (
        "_claims",
        "attempts",
        "begun",
        "bounds",
        "bytes_in",
        "bytes_out",
        "client",
        "connect_time",
        "endpoint",
        "entered",
        "first_byte",
        "going",
        "host",
        "inner",
        "listener",
        "method",
        "reason",
        "refunds",
        "refused",
        "request_id",
        "retries",
        "reused",
        "route",
        "rule",
        "sni",
        "started",
        "status",
        "target",
        "trace",
        "tunnelled",
        "unsent",
        "user",
        "verified",
    )

    def __init__(self, listener: Any, client: str, started: float) -> None:
        self.listener = listener  # the listener's own entry in the assembly; opaque here
        self.client = client
        self.started = started
        self.method = b""
        self.host = b""
        self.target = b""
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.route: Any = None  # the matched routes.Route, None for none
        self.endpoint = ""
        self.connect_time = 0.0
        self.first_byte = 0.0
        self.reused = False
        self.retries = 0
        # Unless the first succeeded: endpoint, why it failed ("" for the last one if it did not), seconds.
        self.attempts: list[tuple[str, str, float]] = []
        self.reason = OK  # why it went wrong, where it did
        self.refused: Any = None  # why the listener takes no (more of the) body: something with a status and a reason
        self.unsent = b""  # the whole body, taken from the client for an endpoint that turned out not to be there
        self.rule = ""  # what of an egress forbade it: "deny 10.0.0.0/8"
        self.sni = ""  # the name in the TLS ClientHello that went through a tunnel of CONNECT
        self.bounds: Any = None  # of what may become a tunnel
        self.tunnelled = False  # another protocol is spoken from here on
        self.request_id = ""  # what a person quotes to have this one found; only some have one
        self.trace = ""  # the trace-id of W3C Trace Context, 32 hexadecimal digits
        # What the layers of an onion tell each other.
        self.begun = False  # an answer is on its way out: nobody may begin another one
        self.user = ""  # who the client has proved to be
        # The claims of its token, once that is verified. They may belong to many requests: nobody changes them.
        self.verified: dict[str, Any] | None = None
        self._claims: dict[str, Any] | None = None  # the request's own
        self.entered = 0  # when the layer that is asked now was entered, in monotonic nanoseconds
        self.going: Any = None  # what the layer, or the application, that was entered last has given back to be awaited
        self.inner: Any = None  # the application inside the layers that wrap all routes
        self.refunds: list[Any] | None = None  # what takes back the charges of limits, should a later one refuse

    @property
    def claims(self) -> dict[str, Any] | None:
        """The claims of its token, once that is verified, for whoever isn't ours: a copy, made for the first that looks
        at it. To change it changes nothing for other requests with the token, nor what is told of this one."""
        if self._claims is None and self.verified is not None:
            self._claims = _copied(self.verified)
        return self._claims


def _copied(value: Any) -> Any:
    """A copy of what JSON is read into; its depth is bounded where it is read."""
    if type(value) is dict:
        return {key: _copied(one) for key, one in value.items()}
    if type(value) is list:
        return [_copied(one) for one in value]
    return value
