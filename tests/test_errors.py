"""Errors carry facts."""

from __future__ import annotations

import inspect

import pytest

from gateway import errors
from gateway.errors import GatewayError, UpstreamError

# The error types of RFC 9209, section 2.3.
RFC_9209 = {
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_header_section_size",
    "http_response_header_size",
    "http_response_body_size",
    "http_response_trailer_section_size",
    "http_response_trailer_size",
    "http_response_transfer_coding",
    "http_response_content_coding",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
}

# RFC 9209 has no names for these, or one for several of them.
OURS = {
    "circuit_open",
    "deadline_exceeded",
    "descriptors_exhausted",
    "endpoint_declined",
    "ports_exhausted",
    "queue_full",
    "queue_timeout",
    "upstream_busy",
}

EVERY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
UPSTREAM = [kind for kind in EVERY if issubclass(kind, UpstreamError)]


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_is_the_project_s_own_and_says_when(kind: type[Exception]) -> None:
    assert issubclass(kind, GatewayError)
    assert kind.__doc__


@pytest.mark.parametrize("kind", UPSTREAM)
def test_reasons_are_the_rfc_s(kind: type[UpstreamError]) -> None:
    assert kind.reason in RFC_9209 | OURS
    if kind is not UpstreamError:
        assert "reason" in vars(kind)


def test_reasons_tell_the_kinds_apart() -> None:
    assert len({kind.reason for kind in UPSTREAM}) == len(UPSTREAM)


@pytest.mark.parametrize("kind", UPSTREAM)
def test_facts(kind: type[UpstreamError]) -> None:
    error = kind("10.0.0.1:80", "it broke", sent=True, reused=True)
    assert (error.endpoint, error.sent, error.reused) == ("10.0.0.1:80", True, True)
    assert str(error) == "10.0.0.1:80: it broke"
    error = kind("", "nobody was asked")
    assert (error.endpoint, error.sent, error.reused, str(error)) == ("", False, False, "nobody was asked")
