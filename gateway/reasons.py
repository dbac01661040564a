"""Every reason for which the gateway ends an exchange itself: one table for answers, log, metrics and README.

A code is stable: people search for it and count it. `python -m gateway.reasons` prints the table as the README has it.
"""

from __future__ import annotations

from typing import NamedTuple

_REQUEST = "http_request_error"
_DENIED = "http_request_denied"
# A reason that a newer or older program, or a plug-in, speaks of.
OTHER = "other"


# What of an egress forbids something, as it is counted; logs and messages say it more exactly: "deny 10.0.0.0/8". The
# kinds of addresses, which are forbidden where there is no `allow`, are those of `listeners/verdict.py`.
EGRESS_RULES = (
    "deny",
    "port",
    "not in allow",
    "own listener",
    "metadata",
    "loopback",
    "unspecified",
    "private",
    "unique-local",
    "shared",
    "link-local",
    "site-local",
    "documentation",
    "benchmark",
    "multicast",
    "broadcast",
    "local NAT64",
    "IPv4-compatible",
    "reserved",
    "max_tunnels_per_client",
    "max_tunnels_per_user",
    "bytes_per_client",
    "bytes_per_user",
    "time_per_client",
    "time_per_user",
)


class Reason(NamedTuple):
    """error: the error type of RFC 9209, section 2.3, "" for what no client is told of. text: one sentence for people.
    statuses: what is answered, the usual one first; none for what comes too late for an answer. routed: whether it
    happens when the route is known already. kind: of the layer that alone has
    this reason, if one has. ends_sessions: whether it also, or only, happens to what is no request: connections and
    sessions of other listeners."""

    error: str
    text: str
    statuses: tuple[int, ...] = ()
    routed: bool = False
    kind: str = ""
    ends_sessions: bool = False

    @property
    def status(self) -> int | None:
        return self.statuses[0] if self.statuses else None


REASONS: dict[str, Reason] = {
    # Before anything else is spoken. Nothing is answered: the connection is reset.
    "proxy_header_missing": Reason("", "The connection did not begin with a PROXY header.", (400,), ends_sessions=True),
    "proxy_header_malformed": Reason("", "The PROXY header can't be read.", (400,), ends_sessions=True),
    "proxy_header_timeout": Reason("", "The PROXY header took too long to arrive.", (408,), ends_sessions=True),
    "proxy_peer_not_trusted": Reason("", "Only proxies that are believed may connect.", (403,), ends_sessions=True),
    # The request can't be read in exactly one way (RFC 9112); the connection ends.
    "request_line_missing": Reason(_REQUEST, "Too many empty lines came before the request.", (400,)),
    "request_line_malformed": Reason(_REQUEST, "The first line is not an HTTP request line.", (400,)),
    "version_malformed": Reason(_REQUEST, "The request line does not end with an HTTP version.", (400, 505)),
    "version_not_supported": Reason(_REQUEST, "Only HTTP/1.0 and HTTP/1.1 are spoken here.", (505,)),
    "target_malformed": Reason(_REQUEST, "The request target has characters that can't stand in one.", (400,)),
    "target_form_not_served": Reason(_REQUEST, "A request target of this form is not served here.", (400, 405)),
    "scheme_not_served": Reason(_REQUEST, "Only http is forwarded here; for all else there is CONNECT.", (501,)),
    "destination_invalid": Reason(_REQUEST, "The request target names no host and port.", (400,)),
    "connect_with_body": Reason(_REQUEST, "CONNECT has no body, and so no field that frames one.", (400,)),
    "bare_line_ending": Reason(_REQUEST, "A line of the head ends with CR or LF alone.", (400,)),
    "control_character": Reason(_REQUEST, "The head holds a control character.", (400,)),
    "header_field_malformed": Reason(_REQUEST, "A line of the head is not a header field.", (400,)),
    "host_missing": Reason(_REQUEST, "The request has no Host field.", (400,)),
    "host_invalid": Reason(_REQUEST, "The Host field does not hold a host.", (400,)),
    "repeated_host": Reason(_REQUEST, "The request has more than one Host field.", (400,)),
    "repeated_content_length": Reason(_REQUEST, "The request has more than one Content-Length field.", (400,)),
    "repeated_transfer_encoding": Reason(_REQUEST, "The request has more than one Transfer-Encoding field.", (400,)),
    "repeated_field": Reason(_REQUEST, "A field that may occur once occurs more often.", (400,)),
    "content_length_invalid": Reason(_REQUEST, "Content-Length is not a number of bytes.", (400,)),
    "two_framings": Reason(_REQUEST, "The request has both Content-Length and Transfer-Encoding.", (400,)),
    "transfer_encoding_in_http10": Reason(_REQUEST, "HTTP/1.0 has no Transfer-Encoding.", (400,)),
    "transfer_encoding_unknown": Reason(_REQUEST, "The only transfer coding spoken here is chunked.", (501, 400)),
    "expectation_unknown": Reason(_REQUEST, "The only expectation that can be met is 100-continue.", (417,)),
    "chunk_size_malformed": Reason(_REQUEST, "A chunk of the request body has no readable size.", (400,), True),
    "chunk_end_missing": Reason(_REQUEST, "A chunk of the request body is longer than it says.", (400,), True),
    "trailer_malformed": Reason(_REQUEST, "The trailer section of the request can't be read.", (400,), True),
    "max_forwards_malformed": Reason(_REQUEST, "Max-Forwards is not a number.", (400,), True),
    "ambiguous_path": Reason(_REQUEST, "The path could be read in more than one way.", (400,)),
    # What a client may ask of a listener.
    "request_line_too_long": Reason(_REQUEST, "The request line is too long.", (414, 400)),
    "header_fields_too_large": Reason(_REQUEST, "The header fields are too large.", (431,)),
    "too_many_header_fields": Reason(_REQUEST, "There are too many header fields.", (431,)),
    "body_too_large": Reason(_REQUEST, "The request body is too large.", (413,), True),
    "request_head_timeout": Reason(_REQUEST, "The request head took too long to arrive.", (408,)),
    "request_body_timeout": Reason(_REQUEST, "The request body stopped arriving.", (408,), True),
    "body_too_slow": Reason(_REQUEST, "The request body arrives too slowly.", (408,), True),
    "connection_limit_reached": Reason(
        "connection_limit_reached", "All connections are in use.", (503,), True, ends_sessions=True
    ),
    "descriptors_exhausted": Reason(
        "proxy_internal_error", "The gateway can't open more connections.", (503,), True, ends_sessions=True
    ),
    "ports_exhausted": Reason(
        "proxy_internal_error", "The gateway can't open more connections there.", (503,), True, ends_sessions=True
    ),
    # Routing, and what an intermediary answers in the origin's place.
    "no_route": Reason("destination_not_found", "Nothing is served at this address.", (404,), ends_sessions=True),
    "method_not_allowed": Reason(_DENIED, "This method is not allowed here.", (405,)),
    "loop_detected": Reason("proxy_loop_detected", "The request came by this gateway before.", (508,), True),
    # A forward proxy's clients.
    "client_not_allowed": Reason(_DENIED, "Your address may not use this proxy.", (403,), ends_sessions=True),
    "proxy_auth_required": Reason(_DENIED, "A user name and password are needed for this proxy.", (407,)),
    "proxy_credentials_invalid": Reason(_DENIED, "The user name or password for this proxy is wrong.", (407,)),
    # The layers around a route.
    "middleware_failed": Reason("proxy_internal_error", "A policy of the gateway failed.", (500,), True),
    "hook_timeout": Reason("proxy_internal_error", "A plug-in took too long.", (500,), True, "hooks"),
    "address_denied": Reason(_DENIED, "Your address may not use this.", (403,), True, "ip_allow"),
    "token_missing": Reason(_DENIED, "A token is needed here.", (401,), True, "jwt"),
    "token_invalid": Reason(_DENIED, "The token is not valid.", (401,), True, "jwt"),
    "token_expired": Reason(_DENIED, "The token has expired.", (401,), True, "jwt"),
    "scope_missing": Reason(_DENIED, "The token does not allow this.", (403,), True, "jwt"),
    "keys_unavailable": Reason("proxy_internal_error", "Tokens can't be verified just now.", (503,), True, "jwt"),
    "credentials_missing": Reason(_DENIED, "A user name and password are needed here.", (401,), True, "basic_auth"),
    "credentials_wrong": Reason(
        _DENIED, "The user name or password is wrong.", (401,), True, "basic_auth", ends_sessions=True
    ),
    "auth_busy": Reason(
        "connection_limit_reached",
        "Too many passwords are being checked already.",
        (503,),
        True,
        "basic_auth",
        ends_sessions=True,
    ),
    "api_key_missing": Reason(_DENIED, "A key is needed here.", (401,), True, "api_key"),
    "api_key_unknown": Reason(_DENIED, "The key is not known.", (401,), True, "api_key"),
    "auth_unavailable": Reason(
        "proxy_internal_error", "Who may use this can't be asked just now.", (503,), True, "forward_auth"
    ),
    "auth_denied": Reason("", "Who was asked refused the request; its answer was passed on.", (), True, "forward_auth"),
    "rate_limited": Reason(_DENIED, "Too many requests: come back later.", (429,), True, "rate_limit"),
    "concurrency_limited": Reason(
        _DENIED, "Too many requests at the same time.", (429,), True, "concurrency_limit"
    ),
    "limit_key_missing": Reason(_DENIED, "The request does not say whom it is counted for.", (400,), True),
    "origin_denied": Reason(_DENIED, "Pages of this origin may not use this.", (403,), True, "cors"),
    "content_coding_unknown": Reason(
        _REQUEST, "The request body is coded in a way that is not known here.", (415,), True, "decompress"
    ),
    "content_coding_broken": Reason(
        _REQUEST, "The request body is not coded as it says.", (400,), True, "decompress"
    ),
    "file_not_found": Reason("destination_not_found", "There is no such file.", (404,), True, "static"),
    "precondition_failed": Reason(_DENIED, "The file is not the one that was meant.", (412,), True, "static"),
    "file_changed": Reason("", "The file became shorter while it was sent, or could not be read.", (), True, "static"),
    # Where a client of a proxy wants to go.
    "egress_denied": Reason(
        "destination_ip_prohibited", "Nobody may go there through this proxy.", (403,), True, ends_sessions=True
    ),
    "tunnel_limit": Reason(_DENIED, "You have as many tunnels open as you may.", (429,), True, ends_sessions=True),
    "dns_error": Reason("dns_error", "The name of the server has no address.", (502,), True, ends_sessions=True),
    # The endpoint.
    "connection_refused": Reason(
        "connection_refused", "The server behind the gateway can't be reached.", (502,), True, ends_sessions=True
    ),
    "connection_timeout": Reason(
        "connection_timeout",
        "The server behind the gateway did not accept a connection in time.",
        (504,),
        True,
        ends_sessions=True,
    ),
    "http_response_timeout": Reason(
        "http_response_timeout", "The server behind the gateway did not answer in time.", (504,), True
    ),
    "connection_read_timeout": Reason(
        "connection_read_timeout", "The server behind the gateway stopped in the middle.", (504,), True
    ),
    "connection_terminated": Reason(
        "connection_terminated", "The server behind the gateway closed the connection too early.", (502,), True
    ),
    "http_protocol_error": Reason(
        "http_protocol_error", "The server behind the gateway sent something that is not HTTP.", (502,), True
    ),
    "http_response_body_size": Reason(
        "http_response_body_size", "The server behind the gateway answered more than it may.", (502,), True
    ),
    "http_upgrade_failed": Reason(
        "http_upgrade_failed", "The server behind the gateway switched to a protocol nobody asked for.", (502,), True
    ),
    "destination_unavailable": Reason(
        "destination_unavailable",
        "No server behind the gateway is ready at the moment.",
        (503,),
        True,
        ends_sessions=True,
    ),
    "deadline_exceeded": Reason(
        "http_response_timeout", "The time for the request was over before there was an answer.", (504,), True
    ),
    "endpoint_declined": Reason(
        "destination_unavailable", "The servers behind the gateway sent the request away.", (503,), True
    ),
    "circuit_open": Reason(
        "destination_unavailable",
        "The servers behind the gateway failed too often and are left alone.",
        (503,),
        True,
        ends_sessions=True,
    ),
    "upstream_busy": Reason(
        "connection_limit_reached",
        "The servers behind the gateway have as much to do as they may.",
        (503,),
        True,
        ends_sessions=True,
    ),
    "queue_full": Reason(
        "connection_limit_reached", "Too many requests wait for a server already.", (503,), True, ends_sessions=True
    ),
    "queue_timeout": Reason(
        "connection_limit_reached",
        "No server behind the gateway had room for the request in time.",
        (503,),
        True,
        ends_sessions=True,
    ),
    "drain_timeout": Reason(
        "proxy_internal_error",
        "The gateway had to end before the answer was whole.",
        (503,),
        True,
        ends_sessions=True,
    ),
    "proxy_internal_error": Reason(
        "proxy_internal_error", "Something went wrong in the gateway.", (500,), True, ends_sessions=True
    ),
    # Too late for an answer, or nobody left to take one: only in the log and the metrics.
    "client_gone": Reason("", "The client went away before it had the whole answer.", (499,), True, ends_sessions=True),
    "client_write_timeout": Reason("", "The client stopped taking its answer.", (), True),
    "tunnel_idle_timeout": Reason("", "Nothing moved in the tunnel for too long.", (), True, ends_sessions=True),
    "tunnel_reset": Reason("", "One side of the tunnel was cut.", (), True, ends_sessions=True),
    "tunnel_too_long": Reason(
        "http_response_timeout",
        "The tunnel, or the request, has lasted for as long as it may.",
        (504,),
        True,
        ends_sessions=True,
    ),
    "tunnel_too_large": Reason(
        _DENIED, "The tunnel, or the request, would carry more bytes than it may.", (403,), True, ends_sessions=True
    ),
    "quota_exhausted": Reason(
        _DENIED, "What you may use in this time is used up.", (403,), True, ends_sessions=True
    ),
    "session_displaced": Reason("", "A session that was used since took its place.", (), ends_sessions=True),
    "socks_version": Reason("", "What is spoken is not SOCKS 5.", (), ends_sessions=True),
    "socks_malformed": Reason("", "A message of the SOCKS handshake can't be read.", (), ends_sessions=True),
    "socks_method": Reason("", "The client can't say who it is in the way that is wanted.", (), ends_sessions=True),
    "socks_command": Reason("", "This can't be asked for here.", (), ends_sessions=True),
    "socks_address_type": Reason("", "There is no such type of address in SOCKS.", (), ends_sessions=True),
    "handshake_timeout": Reason("", "A step of the handshake took too long.", (), ends_sessions=True),
    "hello_timeout": Reason("", "The first message took too long to arrive.", (), ends_sessions=True),
}


def status_of(reason: str) -> int:
    """What is answered for a reason where nobody says otherwise."""
    known = REASONS.get(reason)
    return (known.status if known is not None else None) or 500


def table() -> str:
    """The table in Markdown."""
    rows = ["| reason | status | what it says |", "|---|---|---|"]
    for code, reason in REASONS.items():
        shown = " ".join(map(str, reason.statuses))
        rows.append(f"| `{code}` | {shown if reason.error else f'({shown})' if shown else ''} | {reason.text} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
