"""Endpoints can tell that a request came through the gateway, and clients learn nothing of how things are inside.

    middleware = [{ kind = "hooks", use = "signing:Signing", options = { secret_file = "/etc/gateway/signing.key" } }]

It shows: a file that is read once, when the layer is built; a field that is computed for each request; a response that
is changed by its status.
"""

import hmac
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import time

from gateway.plugins import Request, Response

INSIDE = ("server", "x-powered-by", "x-runtime", "x-debug")


class Signing:
    # What is raised here, such as FileNotFoundError, refuses the reload; the old configuration goes on.
    def __init__(self, secret_file: str, clock: Callable[[], float] = time) -> None:
        self.secret = Path(secret_file).read_bytes().strip()
        self.clock = clock

    def signature(self, moment: int, request: Request) -> str:
        text = f"{moment}\n{request.method}\n{request.host}\n{request.target}"
        return hmac.digest(self.secret, text.encode("latin-1"), sha256).hex()

    # No method of this class waits for anything, so none has to be `async`.
    def rewrite_request(self, request: Request) -> None:
        moment = int(self.clock())
        # Assigning takes the place of whatever the client has sent under this name: it can't pretend.
        request.headers["x-gateway-signature"] = f"t={moment},v1={self.signature(moment, request)}"

    def modify_response(self, response: Response) -> None:
        for name in INSIDE:
            del response.headers[name]
        if response.status == 500:
            # The page of an endpoint that broke may hold anything: a stack trace, a query, a password.
            response.replace("something went wrong\n", content_type="text/plain")
