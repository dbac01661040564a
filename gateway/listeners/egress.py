"""Where clients of a proxy may go: the one guard for CONNECT, SOCKS and plain requests.

A name is looked up once, and what is judged are the addresses that come out, one of which is then dialled: whoever owns
the name can't answer differently in between. What looks like a name and is an address in another notation ("0x7f.1",
"2130706433", full-width digits) is read as the system would read it, and judged as that.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from pathlib import Path
from time import monotonic_ns
from types import TracebackType

from gateway.config import listeners as configured
from gateway.config.values import TcpAddress
from gateway.errors import EgressDenied, NameUnknown
from gateway.ledger import Ledger
from gateway.listeners.resolver import Resolver, literal, resolver_of
from gateway.listeners.verdict import Verdict
from gateway.ranges import UNIX, network, read, written
from gateway.relay import Bounds

_PREFIX = 64  # the bits of an IPv6 address that tell clients apart
_MOST = 16  # addresses of a host that are tried; sites have four or eight, and who owns a name may give it thousands
_LONGEST = 253  # characters of a name (RFC 1035, section 2.3.4)
_SECOND = 1_000_000_000
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What ends so is an address or nothing: no name on the internet does, and what it means depends on who reads it.
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


class Egress:
    """One of the configuration, in one worker."""

    def __init__(
        self,
        name: str,
        config: configured.Egress,
        ledger: Ledger,
        own: Iterable[str] = (),
        denied: Callable[[str], None] = lambda rule: None,
        resolver: Resolver | None = None,
    ) -> None:
        """own: where the gateway itself listens, as "127.0.0.1:80" or "[::]:80". denied: told the rule of each
        denial."""
        self.name = name
        self._verdict = Verdict(config, own)
        self._resolver = resolver or resolver_of(config.resolver)
        self._ledger = ledger
        self._denied = denied
        self._duration = config.max_duration or inf
        self._most = config.max_bytes or inf
        window = int(config.window * _SECOND)
        self._of_client = _Caps.of(
            name, "client", config.max_tunnels_per_client, config.bytes_per_client, config.time_per_client, window
        )
        self._of_user = _Caps.of(
            name, "user", config.max_tunnels_per_user, config.bytes_per_user, config.time_per_user, window
        )

    async def admit(self, host: str, port: int, client: str) -> list[TcpAddress]:
        """Where to connect to for a host: only addresses that passed, in the order in which to try them. host: as the
        client has written it, an IPv6 address without brackets; client: its address. Raises EgressDenied and
        NameUnknown. Takes as long as the name takes to be looked up; the caller sees to the deadline."""
        name, address = self._meant(host, port)
        addresses = (address,) if address is not None else await self._resolver.addresses(name, _whose(client))
        return self._passed(host, port, addresses)

    def known(self, host: str, port: int) -> list[TcpAddress] | None:
        """The same where nothing has to be looked up for it; None where something has."""
        name, address = self._meant(host, port)
        addresses = (address,) if address is not None else self._resolver.known(name)
        return None if addresses is None else self._passed(host, port, addresses)

    def _meant(self, host: str, port: int) -> tuple[str, str | None]:
        """The name, or the address too if it is one. Raises EgressDenied and NameUnknown."""
        rule = self._verdict.on_port(port)
        if rule:
            raise self._denial(host, port, rule)
        name = _readable(host)
        return name, _found(name) if "%" in name else _address(name)

    def _passed(self, host: str, port: int, addresses: Iterable[str]) -> list[TcpAddress]:
        """Those of them that may be dialled. Raises EgressDenied when there is none."""
        rule = ""
        passed = []
        for one in addresses:
            found = self._verdict.on_address(one, port, is_ours)
            if not found:
                passed.append(_place(one, port))
                if len(passed) == _MOST:
                    break
            rule = rule or found
        if not passed:
            raise self._denial(host, port, rule)
        return passed

    def _denial(self, host: str, port: int, rule: str) -> EgressDenied:
        self._denied(rule)
        return EgressDenied(rule, f"{host} port {port} is denied ({rule})")

    def enter(self, client: str, user: str = "", is_tunnel: bool = True) -> Ticket:
        """Leave for one more tunnel, which is given back by leaving the ticket. client: its address; user: "" for
        nobody in particular; is_tunnel: whether it is one, or a request, for which there are quotas only. Raises
        EgressDenied with the reason `tunnel_limit` or `quota_exhausted`."""
        accounts = []
        if self._of_client is not None:
            accounts.append((self._of_client, network(client, _PREFIX)))
        if self._of_user is not None and user:
            accounts.append((self._of_user, user.encode()))
        try:
            return Ticket(self._ledger, accounts, self._duration, self._most, is_tunnel)
        except EgressDenied as denied:
            self._denied(denied.rule)
            raise

    def close(self) -> None:
        self._resolver.close()


@dataclass(frozen=True, slots=True)
class _Quota:
    """name: as in the configuration. byte, second: what one costs, in nanoseconds of a window that is `depth` long."""

    name: str
    key: bytes
    byte: float
    second: float
    depth: int


@dataclass(frozen=True, slots=True)
class _Caps:
    """What each client, or each user, may. most: tunnels at a time, None for any number."""

    name: str
    key: bytes
    most: int | None
    quotas: tuple[_Quota, ...]

    @classmethod
    def of(
        cls, egress: str, whom: str, most: int | None, size: int | None, time: float | None, window: int
    ) -> _Caps | None:
        """None when there is no cap."""
        if most is None and size is None and time is None:
            return None
        key = f"egress\0{egress}\0{whom}\0".encode()
        quotas = []
        if size is not None:
            quotas.append(_Quota(f"bytes_per_{whom}", key + b"bytes\0", window / size, 0.0, window))
        if time is not None:
            quotas.append(_Quota(f"time_per_{whom}", key + b"time\0", 0.0, window / time, window))
        return cls(f"max_tunnels_per_{whom}", key + b"tunnels\0", most, tuple(quotas))


class Ticket:
    """One client's leave for one tunnel: what it may be, and the accounts that it is charged to."""

    __slots__ = ("_accounts", "_duration", "_held", "_ledger", "_most")

    def __init__(
        self,
        ledger: Ledger,
        accounts: list[tuple[_Caps, bytes]],
        duration: float = inf,
        most: float = inf,
        is_tunnel: bool = True,
    ) -> None:
        """accounts: caps, and for whom. Raises EgressDenied."""
        self._ledger = ledger
        self._duration = duration
        self._most = most
        self._accounts = [(quota, quota.key + whom) for caps, whom in accounts for quota in caps.quotas]
        self._held: list[bytes] = []
        now = monotonic_ns() if self._accounts else 0
        for quota, key in self._accounts:
            if ledger.owed(key, now) >= quota.depth:
                raise EgressDenied(quota.name, f"{quota.name} is used up", "quota_exhausted")
        for caps, whom in accounts:
            if caps.most is None or not is_tunnel:
                continue
            key = caps.key + whom
            if not ledger.holds.take(key, caps.most):
                self.close()
                raise EgressDenied(caps.name, f"{caps.name} is {caps.most}, and as many are open", "tunnel_limit")
            self._held.append(key)

    def charge(self, count: int, seconds: float) -> bool:
        """So many bytes more, and seconds. False: the quota is used up."""
        is_left = True
        for quota, key in self._accounts:
            cost = int(count * quota.byte + seconds * quota.second)
            if cost and self._ledger.owe(key, cost, quota.depth):
                is_left = False
        return is_left

    def bounds(self, bandwidth: float | None = None) -> Bounds:
        """Those of the tunnel. bandwidth: bytes a second in each direction, None for any."""
        return Bounds(self._duration, bandwidth or inf, self._most, self.charge if self._accounts else None)

    def close(self) -> None:
        """The tunnel is over."""
        held, self._held = self._held, []
        for key in held:
            self._ledger.holds.release(key)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _whose(client: str) -> bytes:
    """What one client is known by. Who comes by a unix socket is nobody in particular: b""."""
    return b"" if client == UNIX else network(client, _PREFIX)


@lru_cache(maxsize=4096)
def _place(address: str, port: int) -> TcpAddress:
    return TcpAddress(address if "%" in address else written(read(address)), port)


@lru_cache(maxsize=4096)
def _readable(host: str) -> str:
    """A host in ASCII and lower case: a name as it is asked for (RFC 5891: A-labels), or an address in any notation.
    Raises NameUnknown for what is neither."""
    if len(host) > _LONGEST + 1:
        raise NameUnknown(host[:_LONGEST], "is not a name")
    try:
        # nameprep turns what only looks like ASCII into ASCII, and ideographic full stops into dots.
        text = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise NameUnknown(host, "is not a name") from None
    text = text.removesuffix(".")
    if len(text) > _LONGEST or not (":" in text or _NAME.fullmatch(text)):
        raise NameUnknown(host, "is not a name")
    return text


def _found(text: str) -> str | None:
    """The address that a host is, in whatever notation the system takes for one; None for a name. Raises NameUnknown
    for what is neither."""
    if ":" not in text and not _ENDS_IN_NUMBER.fullmatch(text):
        return None
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        raise NameUnknown(text, "is not an address") from None
    return literal(found[0][4])


# But for zones, which name interfaces: these come and go.
_address = lru_cache(maxsize=4096)(_found)


def is_ours(address: str) -> bool:
    """Whether this machine has an address. Asks the kernel, which alone knows: addresses come and go."""
    host, _, zone = address.partition("%")
    is_six = ":" in host
    if not is_six and host.startswith("127."):
        return True
    where = (host, 0, 0, int(zone) if zone.isdecimal() else 0) if is_six else (host, 0)
    try:
        with socket.socket(socket.AF_INET6 if is_six else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            if not _binds_anything(is_six):
                sock.bind(where)
                return True
            # Then binding says nothing; but who connects to an address of his own does so from there.
            sock.connect((host, 9, *where[2:]))
            return bool(sock.getsockname()[0] == host)
    except OSError:
        return False


def _binds_anything(is_six: bool) -> bool:
    """Whether a socket may be bound to an address that this machine hasn't (`ip_nonlocal_bind`)."""
    try:
        return Path(f"/proc/sys/net/ipv{6 if is_six else 4}/ip_nonlocal_bind").read_text().strip() != "0"
    except OSError:
        return False
