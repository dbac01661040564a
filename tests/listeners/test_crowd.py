"""How many connections one client may have open, of HTTP; of TCP it is in its own tests, over workers in a journey."""

from __future__ import annotations

import pytest

from gateway.ledger import Ledger
from gateway.listeners.crowd import Crowd
from tests.listeners.site import Site, get, until
from tests.upstream.peer import Origin, always, live, ok


def test_a_client_is_its_network() -> None:
    ledger = Ledger.create()
    crowd, other = Crowd(ledger, "web", 2), Crowd(ledger, "other", 2)
    first = crowd.enter("2001:db8:1:2::1")
    assert first and crowd.enter("2001:db8:1:2:ffff::")
    assert crowd.enter("2001:db8:1:2::3") is None
    assert crowd.enter("2001:db8:1:3::1") and other.enter("2001:db8:1:2::1")
    crowd.leave(first)
    assert crowd.enter("2001:db8:1:2::4")
    assert crowd.enter("192.0.2.1") and crowd.enter("::ffff:192.0.2.1")
    assert crowd.enter("192.0.2.1") is None and crowd.enter("192.0.2.2")
    ledger.close()


def test_nobody_in_particular_is_not_counted() -> None:
    ledger = Ledger.create()
    crowd = Crowd(ledger, "web", 1)
    held = [crowd.enter("unix") for _ in range(3)]
    assert held == [b""] * 3
    crowd.leave(b"")
    ledger.close()


@live
async def test_a_connection_too_many_is_answered() -> None:
    async with Origin(always(ok())) as origin, Site(origin, listener={"max_connections_per_client": 2}) as site:
        clients = [await site.client(get()) for _ in range(2)]
        for client in clients:
            assert (await client.response()).status == 200
            await site.exchange()
        refused = await (await site.client(get())).response()
        assert refused.status == 503 and b"connection_limit_reached" in refused[b"proxy-status"]
        assert (await site.exchange()).reason == "connection_limit_reached"
        clients[0].close()
        await until(lambda: len(site.entry.connections) == 1)
        again = await site.client(get())
        assert (await again.response()).status == 200


@pytest.mark.parametrize("trusted", [[], ["127.0.0.0/8"]])
@live
async def test_who_speaks_for_others_is_not_one_client(trusted: list[str]) -> None:
    one = {"max_connections_per_client": 1}
    async with Origin(always(ok())) as origin, Site(origin, listener=one, trusted_proxies=trusted) as site:
        first, second = await site.client(get()), await site.client(get())
        statuses = sorted([(await client.response()).status for client in (first, second)])
        assert statuses == ([200, 200] if trusted else [200, 503])
