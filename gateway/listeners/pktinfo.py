"""Which address of this machine a datagram came to, as the kernel tells it (ip(7), ipv6(7)), so that the answer leaves
from there: who asked one address takes no answer from another."""

from __future__ import annotations

import socket

from gateway.listeners.identity import plain

Control = list[tuple[int, int, bytes]]

ROOM = socket.CMSG_SPACE(20)  # bytes for what is told with a datagram: struct in6_pktinfo is the larger one
_PKTINFO = 8  # linux/in.h


def way_back(asked: bytes) -> tuple[Control, str]:
    """What has the kernel send from the address that was asked, and that address in words. asked: struct in_pktinfo, or
    in6_pktinfo; b"" where there is one address only."""
    if len(asked) == 12:
        local = asked[4:8]  # the address of ours that is meant, also of a broadcast
        return [(socket.IPPROTO_IP, _PKTINFO, bytes(4) + local + bytes(4))], socket.inet_ntop(socket.AF_INET, local)
    if len(asked) != 20:
        return [], ""
    local = asked[:16]
    if local[0] == 0xFF:
        return [], ""  # nobody can send from a multicast address
    # The interface is the kernel's to choose, but that of a link-local address, which means nothing without it.
    interface = asked[16:] if local[0] == 0xFE and local[1] & 0xC0 == 0x80 else bytes(4)
    text = plain(socket.inet_ntop(socket.AF_INET6, local))
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local + interface)], text
