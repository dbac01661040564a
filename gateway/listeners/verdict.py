"""Whether an egress lets somebody go to an address: the rule that forbids it. Pure.

Judged is an address, never how it was spelled. An IPv4-mapped IPv6 address is the IPv4 address that it maps, for that
is what the kernel dials. An IPv6 address that has others inside, to which a translator or the end of a tunnel passes on
what it gets, is judged by these, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from gateway.config.listeners import PUBLIC, Egress
from gateway.ranges import Ranges, read, unmapped

OWN = "own listener"
NOT_ALLOWED = "not in allow"

# Where nobody on the internet is, and what that is called: the first that fits. From the registries of IANA (RFC 6890
# and its successors); where clouds answer with the machine's own credentials is known by use only.
_SPECIAL: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "metadata",
        (
            "169.254.169.254",  # nearly all clouds
            "169.254.170.2",  # tasks of ECS
            "169.254.170.23",  # pods of EKS
            "169.254.169.253",  # the resolver of EC2
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "168.63.129.16",  # Azure
            "fd00:ec2::/64",  # EC2, ECS and EKS: ::254, ::253, ::23
            "fd20:ce::254",  # Google
            "fd00:42::42",  # Scaleway
        ),
    ),
    ("loopback", ("127.0.0.0/8", "::1")),
    ("unspecified", ("0.0.0.0/8", "::")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    ("unique-local", ("fc00::/7",)),
    ("shared", ("100.64.0.0/10",)),
    ("link-local", ("169.254.0.0/16", "fe80::/10")),
    ("site-local", ("fec0::/10",)),
    ("documentation", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")),
    ("benchmark", ("198.18.0.0/15", "2001:2::/48")),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    ("broadcast", ("255.255.255.255",)),
    ("local NAT64", ("64:ff9b:1::/48",)),  # RFC 8215: where in it an IPv4 address is nobody else knows
    ("IPv4-compatible", ("::/96",)),
    # 192.88.99.0/24: relays of 6to4. 2001::/23 but for Teredo: protocols.
    ("reserved", ("192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "2001:1::/32", "2001:2::/31", "2001:4::/30")),
    ("reserved", ("2001:8::/29", "2001:10::/28", "2001:20::/27", "2001:40::/26", "2001:80::/25", "2001:100::/24")),
)
_KINDS = tuple((name, Ranges(networks)) for name, networks in _SPECIAL)
# Of IPv6 nothing but this was given to anybody; and the prefix of NAT64, which is judged by what is inside.
_GIVEN = Ranges(("2000::/3", "64:ff9b::/96"))

KINDS = tuple(dict.fromkeys(name for name, _ in _SPECIAL))

_MOST_KNOWN = 4096

_Address = IPv4Address | IPv6Address


class Verdict:
    """What one egress says."""

    def __init__(self, config: Egress, own: Iterable[str] = ()) -> None:
        """own: where the gateway itself listens, as "127.0.0.1:80" or "[::]:80"."""
        self._allow = Ranges(text for text in config.allow if text != PUBLIC)
        self._is_public = not config.allow or PUBLIC in config.allow
        self._deny = Ranges(config.deny)
        self._denied = tuple((text, Ranges((text,))) for text in config.deny)
        self._ports = tuple(_range(text) for text in config.ports)
        self._own: dict[int, list[_Address]] = {}
        for text in own:
            host, _, port = text.rpartition(":")
            if not host.startswith("unix:") and port.isdecimal():
                address = unmapped(read(host.removeprefix("[").removesuffix("]")))
                self._own.setdefault(int(port), []).append(address)
        self._known: dict[str, str] = {}  # what was said of an address; but for our own, which come and go

    def on_port(self, port: int) -> str:
        """What forbids a port, wherever it is; "" when nothing does."""
        return "" if any(first <= port <= last for first, last in self._ports) else f"port {port}"

    def on_address(self, text: str, port: int, is_ours: Callable[[str], bool]) -> str:
        """What forbids this address; "" when nothing does. text: an IP address as the kernel is given it, perhaps with
        a zone. is_ours: whether this machine has an address; asked only where that matters. Raises ValueError."""
        if port in self._own and self._leads_here(text, port, is_ours):
            return OWN
        found = self._known.get(text)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[text] = self._judged(unmapped(read(text)))
        return found

    def _judged(self, address: _Address) -> str:
        inside = tuple(_inside(address))
        if self._deny:
            for one in (address, *inside, *_perhaps_inside(address)):
                if self._deny.covers(str(one)):
                    return "deny " + next(text for text, network in self._denied if network.covers(str(one)))
        covers = self._allow.covers
        if self._is_public:
            return next(filter(None, (kind_of(one) for one in (*inside, address) if not covers(str(one)))), "")
        is_allowed = covers(str(address)) and all(covers(str(one)) for one in inside if kind_of(one))
        return "" if is_allowed else NOT_ALLOWED

    def _leads_here(self, text: str, port: int, is_ours: Callable[[str], bool]) -> bool:
        address = unmapped(read(text))
        if self._is_own(address, port, text if "%" in text else str(address), is_ours):
            return True
        inside = (*_inside(address), *_perhaps_inside(address))
        return any(self._is_own(one, port, str(one), is_ours) for one in inside)

    def _is_own(self, address: _Address, port: int, spelled: str, is_ours: Callable[[str], bool]) -> bool:
        """Whether one of the gateway's listeners is there. Who connects to 0.0.0.0 or :: gets to this machine."""
        bound = self._own[port]
        if address.is_unspecified or address in bound:
            return True
        # A socket of "::" takes IPv4 as well.
        is_everywhere = any(one.is_unspecified and one.version >= address.version for one in bound)
        return is_everywhere and is_ours(spelled)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


@lru_cache(maxsize=4096)
def kind_of(address: _Address) -> str:
    """Why nobody on the internet has this address; "" when somebody may."""
    text = str(address)
    found = next((name for name, networks in _KINDS if networks.covers(text)), "")
    return found or ("reserved" if address.version == 6 and not _GIVEN.covers(text) else "")


_FOUR = 0xFFFF_FFFF


def _inside(address: _Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses at which what is sent to an IPv6 address may come out."""
    if address.version == 4:
        return
    number = int(address)
    low = number & _FOUR
    if number >> 32 in (_NAT64, 0, _TRANSLATED) and number > 1:
        yield IPv4Address(low)
    elif number >> 112 == _6TO4:
        yield IPv4Address(number >> 80 & _FOUR)
    elif number >> 96 == _TEREDO:
        yield IPv4Address(number >> 64 & _FOUR)  # the server
        yield IPv4Address(low ^ _FOUR)  # the client
    if number >> 32 & 0xFDFF_FFFF == _ISATAP:
        yield IPv4Address(low)


_NAT64 = 0x0064_FF9B << 64  # 64:ff9b::/96 (RFC 6052); without its last 32 bits, like the next two
_TRANSLATED = 0xFFFF_0000  # ::ffff:0:0:0/96 (RFC 2765)
_6TO4 = 0x2002  # 2002::/16 (RFC 3056)
_TEREDO = 0x2001_0000  # 2001::/32 (RFC 4380)
_ISATAP = 0x0000_5EFE  # in any network, with or without the bit for what is unique in the world (RFC 5214)
_LOCAL_NAT64 = 0x0064_FF9B_0001  # 64:ff9b:1::/48 (RFC 8215)


def _perhaps_inside(address: _Address) -> Iterator[IPv4Address]:
    """The same for the prefix of NAT64 that each site cuts as it likes: by each length that a prefix in it can have
    (RFC 6052, section 2.2). Bits 64 to 71 are left out."""
    number = int(address)
    if address.version == 6 and number >> 80 == _LOCAL_NAT64:
        without = number >> 64 << 56 | number & ((1 << 56) - 1)  # 120 bits
        for bits in (40, 32, 24):  # behind it, of prefixes of 48, 56 and 64
            yield IPv4Address(without >> bits & _FOUR)
        yield IPv4Address(number & _FOUR)
