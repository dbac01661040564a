"""The head with which a route's requests go on to an endpoint. Pure."""

from __future__ import annotations

from gateway.proxy.headers import asking_lines, outbound
from gateway.proxy.rewrite import Rewrite, join
from gateway.upstream.endpoint import Endpoint
from gateway.wire import RequestHead


class Onward:
    """What a route makes of a request head."""

    __slots__ = ("_rewrite", "_via")

    def __init__(self, via: bytes, rewrite: Rewrite | None) -> None:
        """via: our name."""
        self._via = via
        self._rewrite = rewrite

    def head(self, head: RequestHead, endpoint: Endpoint, upgrade: bytes = b"", expect: bool = False) -> bytes:
        """The head as the endpoint gets it. upgrade: the protocols that are offered; expect: whether the endpoint is to
        be asked for the body first."""
        asking = asking_lines(head, upgrade, expect) if head.fields.asking else b""
        start = head.start
        if self._rewrite is not None or endpoint.base:
            target = head.target if self._rewrite is None else self._rewrite.target(head.target)
            start = head.start_to(join(endpoint.base, target))
        host = endpoint.host or head.special.get(b"host") or endpoint.authority
        return outbound(head, start, host, self._via, asking)
