"""Requests go where their tenant lives; what names no tenant, or one that nobody knows, is answered right here.

    middleware = [
      { kind = "hooks", use = "tenants:Tenants", options = { header = "x-tenant", prefixes = { acme = "/t/acme" } } },
    ]

It shows: options that are checked when the configuration is read, a request that is answered instead of going on,
another target, and an error of the gateway's that gets words of one's own.
"""

import json
from dataclasses import dataclass, field

from gateway.plugins import Failure, Request


class Tenants:
    # With a dataclass (or a pydantic model) of this name the options are checked against its types, and every mistake
    # is told when the configuration is read. The constructor then gets one of these.
    @dataclass
    class Options:
        header: str = "x-tenant"
        prefixes: dict[str, str] = field(default_factory=dict)

    def __init__(self, options: Options) -> None:
        self.header = options.header
        self.prefixes = options.prefixes

    async def rewrite_request(self, request: Request) -> None:
        tenant = request.headers.get(self.header)
        if tenant is None:
            request.respond(400, body=f"{self.header} is missing\n")
            return
        prefix = self.prefixes.get(tenant)
        if prefix is None:
            request.respond(404, body="there is no such tenant\n")
            return
        request.state["tenant"] = tenant  # for on_error: the object itself is shared by all requests
        # The target is what goes over the wire, percent-encoded as it came: nothing is decoded on the way.
        request.target = prefix + request.target
        del request.headers[self.header]

    async def on_error(self, request: Request, error: Failure) -> None:
        # Called when the gateway itself is about to answer: no endpoint was ready, one took too long, a layer further
        # in refused. Without `respond` its own page goes out.
        if error.status >= 500:
            text = {"tenant": request.state.get("tenant"), "reason": error.reason, "message": error.text}
            request.respond(error.status, {"content-type": "application/json"}, json.dumps(text))
