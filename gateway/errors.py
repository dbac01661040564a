"""What can go wrong, as values that carry facts.

An error says which endpoint, whether any byte of the request was handed to the kernel, and one reason code. It never
builds a response: `proxy/answers.py` turns classes into HTTP answers. Reason codes are the error types of the
Proxy-Status field (RFC 9209, section 2.3) wherever it has one.
"""

from __future__ import annotations


class GatewayError(Exception):
    """Anything this project raises on purpose. `str()` is one plain sentence."""


class StartError(GatewayError):
    """The master can't start or go on: address in use, no permission, a file that is missing."""


class Absent(StartError):
    """Something that a configuration names is not on this machine: a file, a module. Nothing can be started without it,
    but the configuration may be right, and what it names may be where it is to serve."""


class DiscoveryError(GatewayError):
    """The endpoints of an upstream can't be found out; those that were found last stay.

    again: seconds until it is worth to look again.
    """

    def __init__(self, message: str, again: float) -> None:
        super().__init__(message)
        self.again = again


class Refused(GatewayError):
    """A request can't go on, as was found while it was already on its way: its body is too large, or no body at all.

    reason: a code of the table in `reasons.py`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EgressDenied(GatewayError):
    """A client may not go where it wants to, or has used up what it may use. Nothing was dialled.

    rule: what forbids it, such as "deny 10.0.0.0/8"; reason: a code of the table in `reasons.py`.
    """

    def __init__(self, rule: str, message: str, reason: str = "egress_denied") -> None:
        super().__init__(message)
        self.rule = rule
        self.reason = reason


class UpstreamError(GatewayError):
    """An exchange with an endpoint failed.

    endpoint: its address as configured, "" when none was chosen.
    sent: whether any byte of the request may have reached the endpoint.
    reused: whether it happened on a connection that had served requests before.
    """

    reason = "proxy_internal_error"

    def __init__(self, endpoint: str, message: str, *, sent: bool = False, reused: bool = False) -> None:
        super().__init__(f"{endpoint}: {message}" if endpoint else message)
        self.endpoint = endpoint
        self.sent = sent
        self.reused = reused


class ConnectFailed(UpstreamError):
    """Refused, unreachable, or the name does not resolve. Nothing was sent.

    errno: what the kernel said, None when it wasn't the kernel.
    """

    reason = "connection_refused"

    def __init__(
        self, endpoint: str, message: str, *, sent: bool = False, reused: bool = False, errno: int | None = None
    ) -> None:
        super().__init__(endpoint, message, sent=sent, reused=reused)
        self.errno = errno


class NameUnknown(UpstreamError):
    """The name of a destination has no address, or nobody can say which. Nothing was sent."""

    reason = "dns_error"


class ConnectTimeout(UpstreamError):
    """No connection within `timeouts.connect`. Nothing was sent."""

    reason = "connection_timeout"


class ResponseTimeout(UpstreamError):
    """No response head within `timeouts.response`."""

    reason = "http_response_timeout"


class OutOfTime(UpstreamError):
    """The time for all attempts at a request is over (`timeouts.total`). It says nothing about the endpoint."""

    reason = "deadline_exceeded"


class IdleTimeout(UpstreamError):
    """A body stood still for `timeouts.idle`."""

    reason = "connection_read_timeout"


class ConnectionCut(UpstreamError):
    """The endpoint closed or reset the connection before the message was whole."""

    reason = "connection_terminated"


class BadResponse(UpstreamError):
    """What the endpoint sent is not HTTP/1.1 as RFC 9112 has it."""

    reason = "http_protocol_error"


class AnswerTooLong(UpstreamError):
    """The answer to a request of ours has more bytes than we take."""

    reason = "http_response_body_size"


class UpgradeFailed(UpstreamError):
    """The endpoint answered 101 for another protocol than was asked for."""

    reason = "http_upgrade_failed"


class DescriptorsExhausted(UpstreamError):
    """This process has no descriptor left to connect with. Nothing was sent, and the endpoint has no part in it."""

    reason = "descriptors_exhausted"


class PortsExhausted(UpstreamError):
    """No address of this machine has a port left for a connection to the endpoint. Nothing was sent, and the endpoint
    has no part in it; another one may be reached all the same."""

    reason = "ports_exhausted"


class NoEndpoint(UpstreamError):
    """No endpoint of the upstream is ready."""

    reason = "destination_unavailable"


class CircuitOpen(NoEndpoint):
    """Most of what went to the upstream of late failed, and it is left alone for a time."""

    reason = "circuit_open"


class Busy(UpstreamError):
    """The upstream, or each endpoint of it that is ready, has as many requests as it may have. Nothing was sent."""

    reason = "upstream_busy"


class QueueFull(Busy):
    """So many wait for room already that this one may not."""

    reason = "queue_full"


class WaitedTooLong(Busy):
    """There was no room within the `queue.timeout` of the upstream."""

    reason = "queue_timeout"


class Declined(UpstreamError):
    """The endpoint answered with a status that calls for another attempt. No client sees it while there is one.

    retry_after: the seconds for which the endpoint wants to be left alone, 0 when it doesn't say.
    """

    reason = "endpoint_declined"
    status = 503
    retry_after = 0.0

    @classmethod
    def with_status(cls, endpoint: str, status: int, retry_after: float) -> Declined:
        error = cls(endpoint, f"answered {status}", sent=True)
        error.status = status
        error.retry_after = retry_after
        return error


class QueueTimeout(UpstreamError):
    """All connections to the endpoint were busy for longer than `pool.queue_timeout`."""

    reason = "connection_limit_reached"
