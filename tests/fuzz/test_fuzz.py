"""Each target over its seeds, and over the same few thousand mutations of them, without a fuzzer."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from gateway import client_hello, proxy_protocol
from gateway.middleware.identity import jose
from gateway.socks import Request
from gateway.wire import chunked, heads
from tests.fuzz import socks
from tests.fuzz.__main__ import NAMES, shrunk
from tests.fuzz.acts import Act, acts
from tests.fuzz.loop import Finding, Loop, running
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Target

MUTATIONS = {
    "server": 2000,
    "proxy": 1000,
    "forward": 1000,
    "response": 500,
    "chunks": 2000,
    "tokens": 2000,
    "hello": 2000,
    "socks": 2000,
    "preface": 2000,
}


@pytest.fixture
def loop() -> Iterator[Loop]:
    with running() as one:
        yield one


def test_every_target_has_a_name() -> None:
    assert tuple(TARGETS) == NAMES == tuple(MUTATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_the_seeds(loop: Loop, name: str) -> None:
    target = TARGETS[name]
    assert len(set(target.seeds)) == len(target.seeds)
    for seed in target.seeds:
        tried(loop, name, seed)


@pytest.mark.parametrize("name", NAMES)
def test_mutations_of_the_seeds(loop: Loop, name: str) -> None:
    for data in mutated(TARGETS[name].seeds, MUTATIONS[name]):
        tried(loop, name, data)


def tried(loop: Loop, name: str, data: bytes) -> None:
    """Raises AssertionError with the input when it fails."""
    try:
        TARGETS[name].run(loop, data)
    except Exception as error:
        raise AssertionError(f"{name}: {data!r}: {error!r}") from error


# The targets themselves: they must be able to fail.


def test_what_an_input_means() -> None:
    sent = Act(b"\xff|", b"ab")
    assert list(acts(b"ab")) == [sent]
    assert list(acts(b"ab\xff|ab\xffE\xff\xffL")) == [sent, sent, Act(b"\xffE"), Act(b"\xff|", b"\xff"), Act(b"\xffL")]
    assert list(acts(b"x\xff*"))[:2] == [Act(b"\xff|", b"x")] * 2


def length_first(special: Mapping[bytes, bytes], *rest: Any) -> int:
    """A framing that prefers Content-Length to Transfer-Encoding, as nobody should."""
    if b"content-length" in special:
        return int(special[b"content-length"])
    return -1 if b"transfer-encoding" in special else 0


def any_base64(text: bytes) -> bytes:
    """One that takes what the common decoders take."""
    return urlsafe_b64decode(text + b"==")


def any_tlvs(header: bytes, at: int) -> None:
    """One that does not look."""


def hasty(data: bytes) -> object:
    """One that takes half a request for a whole one."""
    return (Request(1, "", 0), len(data)) if data[:2] == b"\5\1" else None


KINDER: dict[str, tuple[object, str, object]] = {
    "server": (heads, "request_length", length_first),
    "proxy": (heads, "request_length", length_first),
    "forward": (heads, "request_length", length_first),
    "response": (heads, "response_length", length_first),
    "chunks": (chunked, "_SIZE_LINE", re.compile(rb"([0-9A-Fa-f]{1,15})\r?\n")),
    "tokens": (jose, "decode64", any_base64),
    "hello": (client_hello, "_NAME", re.compile(b".*", re.DOTALL)),
    "preface": (proxy_protocol, "_check_tlvs", any_tlvs),
    "socks": (socks, "read_request", hasty),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_that_is_too_kind_is_found(loop: Loop, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*KINDER[name])
    found = 0
    for data in TARGETS[name].seeds:
        try:
            TARGETS[name].run(loop, data)
        except Exception:
            loop.forget()
            found += 1
    assert found


def test_an_input_is_made_smaller(loop: Loop) -> None:
    def run(loop: Loop, data: bytes) -> None:
        if b"a" in data and b"b" in data:
            raise Finding("both")

    assert shrunk(loop, Target("both", run, ()), b"xxaxxxxxxbxxxxx", "Finding both") == b"ab"
