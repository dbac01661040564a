"""What stands around a route: policies, each an ASGI class with its own options. Knows requests and responses, and the
pools for requests of its own; never knows routes, listeners or how a response is come by.

A kind is one file here and one line in the table below.
"""

from __future__ import annotations

from gateway.config.layers import Kinds
from gateway.middleware.api_key import ApiKey
from gateway.middleware.asgi import Asgi
from gateway.middleware.bandwidth_limit import BandwidthLimit
from gateway.middleware.basic_auth import BasicAuth
from gateway.middleware.body_limit import BodyLimit
from gateway.middleware.compress import Compress
from gateway.middleware.concurrency_limit import ConcurrencyLimit
from gateway.middleware.cors import Cors
from gateway.middleware.decompress import Decompress
from gateway.middleware.forward_auth import ForwardAuth
from gateway.middleware.headers import Headers
from gateway.middleware.hooks import Hooks
from gateway.middleware.ip_allow import IpAllow
from gateway.middleware.jwt import Jwt
from gateway.middleware.middleware import Middleware
from gateway.middleware.rate_limit import RateLimit
from gateway.middleware.redirect_https import RedirectHttps
from gateway.middleware.request_id import RequestId
from gateway.middleware.respond import Respond
from gateway.middleware.security_headers import SecurityHeaders
from gateway.middleware.static import Static

MIDDLEWARE: dict[str, type[Middleware]] = {
    "api_key": ApiKey,
    "asgi": Asgi,
    "bandwidth_limit": BandwidthLimit,
    "basic_auth": BasicAuth,
    "body_limit": BodyLimit,
    "compress": Compress,
    "concurrency_limit": ConcurrencyLimit,
    "cors": Cors,
    "decompress": Decompress,
    "forward_auth": ForwardAuth,
    "headers": Headers,
    "hooks": Hooks,
    "ip_allow": IpAllow,
    "jwt": Jwt,
    "rate_limit": RateLimit,
    "redirect_https": RedirectHttps,
    "request_id": RequestId,
    "respond": Respond,
    "security_headers": SecurityHeaders,
    "static": Static,
}

# What a configuration may say of each.
KINDS: Kinds = {kind: made.OPTIONS for kind, made in MIDDLEWARE.items()}
