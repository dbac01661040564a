"""What the kernel knows of a connection and the event loop doesn't tell."""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from typing import Any


def waiting(transport: Any) -> bool:
    """Whether something waits to be read: True when the next read would return at once: with data, with the end, or
    with an error."""
    fd = _fd(transport)
    if fd < 0:
        return True
    poll = select.poll()  # 0.7 us; a socket object around the descriptor and a look at one byte of it 4.5
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def is_dead(transport: Any) -> bool:
    """Whether the peer takes nothing any more: its socket is closed and it has said so (a reset; on a unix socket its
    close is enough). A peer that has only finished sending is not dead."""
    fd = _fd(transport)
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, 0)  # errors and hang-ups are told without being asked for
    return bool(poll.poll(0))


def is_reset(transport: Any) -> bool:
    """Whether the connection has failed: a reset. Where both have finished sending `is_dead` says yes, though what the
    peer has sent may still wait to be read."""
    fd = _fd(transport)
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def has_finished(transport: Any) -> bool:
    """Whether the peer has said that it sends nothing more, though what it has sent may still wait to be read."""
    fd = _fd(transport)
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


def untaken(transport: Any) -> int:
    """Bytes written that the peer's machine has not acknowledged, in this process and in the kernel."""
    own: int = transport.get_write_buffer_size()
    fd = _fd(transport)
    if fd < 0:
        return own
    try:
        (queued,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
    except OSError:
        return own
    return own + int(queued)


def _fd(transport: Any) -> int:
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())
