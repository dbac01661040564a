"""What may be tried again, and where."""

from __future__ import annotations

import inspect

import pytest

from gateway import errors
from gateway.errors import UpstreamError
from gateway.proxy.retry import IDEMPOTENT, again, elsewhere

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, UpstreamError) and kind is not UpstreamError
]
SAFE = (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [*SAFE, b"POST", b"get"])
@pytest.mark.parametrize("has_body", [False, True])
def test_another_endpoint_is_asked_when_nothing_was_sent(
    kind: type[UpstreamError], method: bytes, has_body: bool
) -> None:
    expected = kind not in (errors.QueueTimeout, errors.DescriptorsExhausted)
    assert elsewhere(kind("a", "b"), method, has_body) is expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [*SAFE, b"POST", b"get"])
@pytest.mark.parametrize("has_body", [False, True])
def test_another_endpoint_is_asked_after_a_cut_where_the_request_may_be_made_twice(
    kind: type[UpstreamError], method: bytes, has_body: bool
) -> None:
    expected = kind is errors.ConnectionCut and method in SAFE and not has_body
    assert elsewhere(kind("a", "b", sent=True), method, has_body) is expected
    assert not elsewhere(kind("a", "b", sent=True, reused=True), method, has_body)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("method", [*SAFE, b"POST", b"PATCH", b"LOCK", b"get"])
@pytest.mark.parametrize("has_body", [False, True])
def test_the_same_is_asked_again_only_after_a_kept_connection_was_cut(
    kind: type[UpstreamError], reused: bool, method: bytes, has_body: bool
) -> None:
    error = kind("a", "b", sent=True, reused=reused)
    expected = kind is errors.ConnectionCut and reused and method in SAFE and not has_body
    assert again(error, method, has_body) is expected


def test_the_idempotent_methods_are_the_rfc_s() -> None:
    assert set(SAFE) == IDEMPOTENT
