"""Ways to find the endpoints of an upstream. One file each, one line each in the table.

They know where to look and nothing else: who asks when, what becomes of the answer and who is healthy is not theirs.
"""

from __future__ import annotations

from gateway.config.upstreams import Upstream
from gateway.upstream.discovery.discovery import Discovery, Found
from gateway.upstream.discovery.dns import Dns
from gateway.upstream.discovery.file import File
from gateway.upstream.discovery.static import Static

__all__ = ["DISCOVERIES", "Discovery", "Found", "discovery_of"]

DISCOVERIES: dict[str, type[Discovery]] = {
    "static": Static,
    "dns": Dns,
    "file": File,
}


def discovery_of(upstream: Upstream) -> Discovery:
    return DISCOVERIES["static" if upstream.discovery is None else upstream.discovery.kind](upstream)
