"""The cookie by which a client stays with its endpoint.

Its value is a message authentication code of the endpoint's name: the same in every worker and after a reload, nobody
can make one without the secret, and no address can be read from it. Pure.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256

from gateway.config.upstreams import Sticky as StickyConfig
from gateway.upstream.endpoint import Endpoint

_LONG = 22  # characters of base64: 128 bits and a little more


class Sticky:
    """Endpoints by cookie, and cookies by endpoint."""

    def __init__(self, upstream: str, config: StickyConfig) -> None:
        self._key = config.secret.encode()
        self._upstream = upstream.encode()
        self.cookie = config.cookie.encode()
        age = "" if config.max_age is None else f"; Max-Age={int(config.max_age)}"
        self._attributes = f"; Path={config.path}{age}; HttpOnly; SameSite={config.same_site.capitalize()}".encode()
        self._secure = config.secure
        self._endpoints: dict[bytes, Endpoint] = {}
        self._values: dict[Endpoint, bytes] = {}

    def know(self, endpoints: Iterable[Endpoint]) -> None:
        """These are the members."""
        self._values = {endpoint: self._values.get(endpoint) or self._value(endpoint) for endpoint in endpoints}
        self._endpoints = {value: endpoint for endpoint, value in self._values.items()}

    def _value(self, endpoint: Endpoint) -> bytes:
        code = hmac.digest(self._key, self._upstream + b"\0" + endpoint.name.encode(), sha256)
        return urlsafe_b64encode(code)[:_LONG]

    def bound(self, value: bytes) -> Endpoint | None:
        """The endpoint that a cookie stands for; None for a cookie that isn't ours, or of one that is gone."""
        return self._endpoints.get(value)

    def line(self, endpoint: Endpoint, value: bytes, is_tls: bool) -> bytes:
        """The field that binds a client to an endpoint, CRLF before it; b"" when its cookie, `value`, does so."""
        wanted = self._values.get(endpoint)
        if wanted is None or wanted == value:
            return b""
        secure = self._secure == "always" or (self._secure == "auto" and is_tls)
        return b"\r\nset-cookie: %b=%b%b%b" % (self.cookie, wanted, self._attributes, b"; Secure" if secure else b"")
