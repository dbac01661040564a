"""A worker's door: what it accepts, and what it leaves to its successor."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from gateway.listeners.http import Door
from tests.listeners.site import Site, until
from tests.upstream.peer import Origin, always, live, ok


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application that begins and ends."""
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})


@live
async def test_who_comes_when_it_has_been_told_to_leave_is_the_successors() -> None:
    """At once, before the loop has had another turn."""
    async with Origin(always(ok())) as origin, Site(origin) as site:
        with socket.create_server(("127.0.0.1", 0)) as kept:
            door = Door(nothing, [site.entry], [], {"web": kept.dup()}, lambda: door.go(), lambda names: None)
            serving = asyncio.ensure_future(door.run_until_left())
            await until(lambda: door.started)
            door.drain(5.0, [], stopping=False)
            with socket.create_connection(kept.getsockname()):
                await serving
                assert not site.cells[site.entry.accepted_cell]
                kept.setblocking(False)
                kept.accept()[0].close()
