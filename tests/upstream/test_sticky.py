"""The cookie that binds a client to an endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.upstreams import Sticky as StickyConfig
from gateway.upstream.sticky import Sticky
from tests.upstream.parts import endpoints


def sticky(upstream: str = "app", secret: str = "secret", **more: Any) -> Sticky:
    return Sticky(upstream, StickyConfig.model_validate({"cookie": "gw", "secret": secret, **more}))


def value(line: bytes) -> bytes:
    return line.removeprefix(b"\r\nset-cookie: gw=").partition(b";")[0]


def test_there_and_back() -> None:
    one, two = members = endpoints(1, 1)
    ours = sticky()
    ours.know(members)
    cookies = [value(ours.line(endpoint, b"", False)) for endpoint in members]
    assert [ours.bound(cookie) for cookie in cookies] == [one, two]
    assert ours.line(one, cookies[0], False) == b""  # it has it already
    assert value(ours.line(two, cookies[0], False)) == cookies[1]


def test_every_worker_makes_the_same_and_nobody_else() -> None:
    members = endpoints(1)
    lines = []
    for other in (sticky(), sticky(), sticky("web"), sticky(secret="other")):
        other.know(members)
        lines.append(other.line(members[0], b"", False))
    assert lines[0] == lines[1] and len(set(lines)) == 3


def test_no_address_can_be_read_from_it() -> None:
    members = endpoints(1)
    ours = sticky()
    ours.know(members)
    line = ours.line(members[0], b"", False)
    assert members[0].name.encode() not in line and len(value(line)) == 22


@pytest.mark.parametrize("forged", [b"", b"x", b"10.0.0.1:1", b"\xff" * 22])
def test_a_foreign_value_binds_to_nobody(forged: bytes) -> None:
    ours = sticky()
    ours.know(endpoints(1))
    assert ours.bound(forged) is None


def test_who_is_gone_is_forgotten() -> None:
    one, two = endpoints(1, 1)
    ours = sticky()
    ours.know([one, two])
    cookie = value(ours.line(one, b"", False))
    ours.know([two])
    assert ours.bound(cookie) is None
    assert ours.line(one, b"", False) == b""  # an answer that was still on its way binds nobody to it
    ours.know([one, two])
    assert ours.bound(cookie) is one


@pytest.mark.parametrize(
    ("more", "is_tls", "attributes"),
    [
        ({}, False, b"; Path=/; HttpOnly; SameSite=Lax"),
        ({}, True, b"; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"secure": "always"}, False, b"; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"secure": "never"}, True, b"; Path=/; HttpOnly; SameSite=Lax"),
        (
            {"path": "/shop", "max_age": "1h", "same_site": "strict"},
            False,
            b"; Path=/shop; Max-Age=3600; HttpOnly; SameSite=Strict",
        ),
    ],
)
def test_attributes(more: dict[str, Any], is_tls: bool, attributes: bytes) -> None:
    ours = sticky(**more)
    members = endpoints(1)
    ours.know(members)
    assert ours.line(members[0], b"", is_tls).endswith(value(ours.line(members[0], b"", is_tls)) + attributes)
