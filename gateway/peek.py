"""Whether something waits in a connection's socket that the event loop has not read yet."""

from __future__ import annotations

import socket
from typing import Any


def waiting(transport: Any) -> bool:
    """True when the next read would return at once: with data, with the end, or with an error."""
    inner = transport.get_extra_info("socket")
    if inner is None or inner.fileno() < 0:
        return True
    probe = socket.socket(fileno=inner.fileno())
    try:
        probe.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        probe.detach()
    return True
