"""httpx over our own connections: the only file that knows it. For plug-ins, and for libraries that take a transport.

    transport = Transport(clients)
    response = await transport.handle_async_request(httpx.Request("GET", url, extensions={"target": b"/as%2Fit/is"}))

Or `httpx.AsyncClient(transport=transport)`; but that has a cookie jar for all of its requests and fields of its own,
and so is not for requests that are made in the name of clients. Nothing in the project uses it: `clients.py` does all
of this for less.

Extensions of a request: "target", bytes that are sent as they are; "timeout", as httpx has it; "deadline", seconds for
the whole exchange; "most", bytes of the answer's body.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import httpx

from gateway import errors
from gateway.config.values import HttpUrl, TcpAddress
from gateway.errors import UpstreamError
from gateway.upstream.clients import Clients, checked_target, lines_of
from gateway.upstream.reply import Patience, Reply

# The first that fits, from the special to the general.
_RAISED: tuple[tuple[type[UpstreamError], type[httpx.TransportError]], ...] = (
    (errors.ConnectTimeout, httpx.ConnectTimeout),
    (errors.ConnectFailed, httpx.ConnectError),
    (errors.DescriptorsExhausted, httpx.ConnectError),
    (errors.PortsExhausted, httpx.ConnectError),
    (errors.QueueTimeout, httpx.PoolTimeout),
    (errors.ResponseTimeout, httpx.ReadTimeout),
    (errors.IdleTimeout, httpx.ReadTimeout),
    (errors.OutOfTime, httpx.ReadTimeout),
    (errors.ConnectionCut, httpx.ReadError),
    (errors.BadResponse, httpx.RemoteProtocolError),
    (errors.AnswerTooLong, httpx.RemoteProtocolError),
    (UpstreamError, httpx.NetworkError),
)


class Transport(httpx.AsyncBaseTransport):
    """The pools of a process as httpx sees them. Raises httpx.TransportError; `reason_of` tells more."""

    def __init__(self, clients: Clients, *, ca: str | None = None, verify: bool = True) -> None:
        """ca, verify: as `Clients.server` has them."""
        self._clients = clients
        self._ca = ca
        self._verify = verify

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with _translated(request):
            server = self._clients.server(_url(request.url), ca=self._ca, verify=self._verify)
            target = checked_target(request.extensions.get("target") or request.url.raw_path)
            host = next((value for name, value in request.headers.raw if name.lower() == b"host"), b"")
            reply = await server.open(
                request.method.encode("ascii"),
                lines_of(request.headers.raw),
                _body(request),
                length=_length(request),
                target=target,
                host=checked_target(host) if host else None,
                patience=_patience(request.extensions),
            )
        head = reply.head
        stream = _Stream(reply, request, request.extensions.get("most"))
        return httpx.Response(head.status, headers=head.pairs(), stream=stream, request=request)

    async def aclose(self) -> None:
        """Nothing: the connections are everybody's."""


def reason_of(error: httpx.TransportError) -> str:
    """The reason code of an error that came through here."""
    cause = error.__cause__
    return cause.reason if isinstance(cause, UpstreamError) else UpstreamError.reason


class _Stream(httpx.AsyncByteStream):
    """The body of an answer. Read to its end or not, it is closed by who takes it."""

    def __init__(self, reply: Reply, request: httpx.Request, most: int | None) -> None:
        self._reply = reply
        self._request = request
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated(self._request):
            async for part in self._reply.parts(self._most):
                yield part

    async def aclose(self) -> None:
        self._reply.close()


@contextmanager
def _translated(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except UpstreamError as error:
        _raise(error, request)
    except (ValueError, errors.StartError) as error:
        raise httpx.LocalProtocolError(str(error), request=request) from error


def _raise(error: UpstreamError, request: httpx.Request) -> NoReturn:
    kind = next(known for ours, known in _RAISED if isinstance(error, ours))
    raise kind(str(error), request=request) from error


def _url(url: httpx.URL) -> HttpUrl:
    if url.scheme not in ("http", "https"):
        raise ValueError(f"only http and https are spoken here, not {url.scheme!r}")
    is_https = url.scheme == "https"
    return HttpUrl(is_https, TcpAddress(url.raw_host.decode("ascii"), url.port or (443 if is_https else 80)))


def _body(request: httpx.Request) -> bytes | httpx.AsyncByteStream:
    try:
        return request.content
    except httpx.RequestNotRead:
        if not isinstance(request.stream, httpx.AsyncByteStream):
            raise ValueError("the body of a request must be an asynchronous stream") from None
        return request.stream


def _length(request: httpx.Request) -> int:
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() else -1


def _patience(extensions: Any) -> Patience:
    timeout = extensions.get("timeout") or {}
    waits = [timeout[name] for name in ("pool", "connect") if timeout.get(name) is not None]
    read = timeout.get("read")
    return Patience(sum(waits) if waits else None, read, read, extensions.get("deadline"))
