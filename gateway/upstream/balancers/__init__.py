"""The balancing policies. One file each, one line each in the table."""

from __future__ import annotations

from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.balancers.round_robin import RoundRobin

BALANCERS: dict[str, type[Balancer]] = {
    "round_robin": RoundRobin,
}
