"""Layers of every kind that let a request through, and what it must say for that."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import bcrypt
import jwt


class Passing(NamedTuple):
    """How a layer of a kind is told to let a request through, and what the request must say. options may be callable:
    with a directory for files and the address of a server that says yes."""

    options: Callable[[Path, str], dict[str, Any]]
    fields: bytes = b""


def _given(**options: Any) -> Callable[[Path, str], dict[str, Any]]:
    return lambda folder, yes: options


def _htpasswd(folder: Path, yes: str) -> dict[str, Any]:
    (folder / "htpasswd").write_text("ann:" + bcrypt.hashpw(b"sesame", bcrypt.gensalt(4)).decode() + "\n")
    return {"htpasswd": str(folder / "htpasswd")}


def _plugin(name: str) -> Callable[[Path, str], dict[str, Any]]:
    def options(folder: Path, yes: str) -> dict[str, Any]:
        (folder / "does_nothing.py").write_text(
            "class Hooks:\n"
            "    async def rewrite_request(self, request): pass\n"
            "    async def modify_response(self, response): pass\n"
            "class Layer:\n"
            "    def __init__(self, app): self.app = app\n"
            "    async def __call__(self, scope, receive, send): await self.app(scope, receive, send)\n"
        )
        return {"use": f"does_nothing:{name}"}

    return options


SECRET = "a secret of thirty-two characters"
TOKEN = jwt.encode({"sub": "ann", "exp": int(time.time()) + 86400}, SECRET, "HS256").encode()
PASSING = {
    "api_key": Passing(
        _given(header="x-api-key", keys=[{"name": "ci", "sha256": hashlib.sha256(b"secret").hexdigest()}]),
        b"X-Api-Key: secret\r\n",
    ),
    "asgi": Passing(_plugin("Layer")),
    "bandwidth_limit": Passing(_given(request="10GiB/s", response="10GiB/s")),
    "basic_auth": Passing(_htpasswd, b"Authorization: Basic YW5uOnNlc2FtZQ==\r\n"),
    "body_limit": Passing(_given(max="1GiB")),
    "compress": Passing(_given()),
    "concurrency_limit": Passing(_given(key="client_ip", max=10)),
    "cors": Passing(_given(origins=["https://app.example.com"])),
    "decompress": Passing(_given()),
    "forward_auth": Passing(lambda folder, yes: {"url": f"http://{yes}/"}),
    "headers": Passing(_given(request={"remove": ["x-none"]}, response={"remove": ["x-none"]})),
    "hooks": Passing(_plugin("Hooks")),
    "ip_allow": Passing(_given(allow=["127.0.0.0/8"])),
    "jwt": Passing(_given(secret=SECRET, algorithms=["HS256"]), b"Authorization: Bearer " + TOKEN + b"\r\n"),
    "rate_limit": Passing(_given(key="client_ip", rate="1000000/s", burst=1000000)),
    "redirect_https": Passing(_given(), b"X-Forwarded-Proto: https\r\n"),
    "request_id": Passing(_given()),
    "respond": Passing(_given(methods=["DELETE"])),
    "security_headers": Passing(_given()),
    "static": Passing(lambda folder, yes: {"root": str(folder), "fallthrough": True}),
}
