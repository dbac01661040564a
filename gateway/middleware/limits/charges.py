"""What limits have charged a request for, so that it can be given back: who is sent away by one limit has used up
nothing of the others. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

# Gives an amount back to the account of a key.
GiveBack = Callable[[bytes, int], Awaitable[None] | None]


def charged(exchange: Any, give_back: GiveBack, key: bytes, cost: int) -> None:
    """A limit has charged this."""
    charge = (give_back, key, cost)
    if exchange.refunds is None:
        exchange.refunds = [charge]
    else:
        exchange.refunds.append(charge)


def refunds(exchange: Any) -> list[Awaitable[None]]:
    """A limit refuses: the others get back what they charged. Returns what is still to be awaited."""
    charges, exchange.refunds = exchange.refunds or [], None
    return [waits for give_back, key, cost in charges if (waits := give_back(key, cost)) is not None]
