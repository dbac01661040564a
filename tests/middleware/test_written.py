"""Fields under a name that a configuration gives: which it may give, with every kind that writes them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.middleware import KINDS
from gateway.wire import HOP_BY_HOP

# Options of a kind with a name in them; whether any field may be meant that doesn't frame the message.
WRITERS: dict[str, tuple[str, Any, bool]] = {
    "request_id": ("request_id", lambda name: {"header": name}, False),
    "jwt": (
        "jwt",
        lambda name: {"secret": "s" * 32, "algorithms": ["HS256"], "claims_to_headers": {"sub": name}},
        False,
    ),
    "basic_auth": ("basic_auth", lambda name: {"htpasswd": "users", "user_header": name}, False),
    "api_key": ("api_key", lambda name: {"header": "k", "keys_file": "keys", "name_header": name}, False),
    "forward_auth": ("forward_auth", lambda name: {"url": "http://127.0.0.1/", "copy_headers": [name]}, True),
    **{
        f"headers, {way} {what}": (
            "headers",
            lambda name, way=way, what=what: {way: {what: [name] if what == "remove" else {name: "x"}}},
            True,
        )
        for way in ("request", "response")
        for what in ("set", "add", "default", "remove")
    },
}


@pytest.mark.parametrize("name", [*sorted(one.decode() for one in HOP_BY_HOP), "content-length", "Via"])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_frames_a_message_is_nobodys_to_write(writer: str, name: str) -> None:
    kind, options, _ = WRITERS[writer]
    with pytest.raises(ValidationError, match=r"belongs to the connection|written by the gateway|means something else"):
        KINDS[kind].model_validate(options(name.title()))


@pytest.mark.parametrize(
    "name", ["host", "date", "set-cookie", "Cookie", "authorization", "Content-Type", "traceparent", "if-match", "x_id"]
)
@pytest.mark.parametrize("writer", [writer for writer in WRITERS if not WRITERS[writer][2]])
def test_what_a_layer_tells_has_a_field_of_its_own(writer: str, name: str) -> None:
    kind, options, _ = WRITERS[writer]
    with pytest.raises(ValidationError, match=r"means something else|are dropped"):
        KINDS[kind].model_validate(options(name))


@pytest.mark.parametrize("writer", WRITERS)
def test_other_names(writer: str) -> None:
    kind, options, is_free = WRITERS[writer]
    for name in ("X-User", "x-forwarded-user", "Correlation-Id", *(("Authorization", "Cookie") if is_free else ())):
        KINDS[kind].model_validate(options(name))
