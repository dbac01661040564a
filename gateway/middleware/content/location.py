"""Where a redirect leads. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes

# What a URI is not made of (RFC 3986), but a request target may be.
_NOT_IN_URI = re.compile(rb"[^!#$%&'()*+,/:;=?@\[\]0-9A-Za-z\-._~]")


def in_location(target: bytes) -> bytes:
    """A request target as it can stand in a Location."""
    return _NOT_IN_URI.sub(lambda found: quote_from_bytes(found[0], safe="").encode(), target)
