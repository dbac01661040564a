"""What stands around a route: policies, each an ASGI class with its own options. Knows requests and responses, and the
pools for requests of its own; never knows routes, listeners or how a response is come by.

A kind is one file here and one line in the table below.
"""

from __future__ import annotations

from gateway.config.layers import Kinds
from gateway.middleware.asgi import Asgi
from gateway.middleware.headers import Headers
from gateway.middleware.hooks import Hooks
from gateway.middleware.middleware import Middleware
from gateway.middleware.request_id import RequestId

MIDDLEWARE: dict[str, type[Middleware]] = {
    "asgi": Asgi,
    "headers": Headers,
    "hooks": Hooks,
    "request_id": RequestId,
}

# What a configuration may say of each.
KINDS: Kinds = {kind: made.OPTIONS for kind, made in MIDDLEWARE.items()}
