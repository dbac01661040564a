"""Limits of rate: who is admitted, what is said, what is given back."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.ledger import Ledger
from gateway.metrics.plan import LAYER_SHADOWED
from gateway.middleware.rate_limit import Options
from tests.listeners.site import Site, get
from tests.middleware.rig import Layers, hello
from tests.upstream.peer import Origin, always, live, ok

# Nothing comes back while a test runs.
SLOW = {"kind": "rate_limit", "rate": "1/h", "burst": 3}


@live
async def test_a_burst_passes_and_the_rest_is_refused() -> None:
    layers = Layers(hello, SLOW)
    told = [await layers.ask() for _ in range(5)]
    assert [one.status for one in told] == [200, 200, 200, 429, 429]
    assert told[3].exchange.reason == "rate_limited"
    assert 3590 < int(told[3][b"retry-after"]) <= 3600
    assert layers.refused() == 2
    assert (await layers.ask(client="192.0.2.2")).status == 200


@live
async def test_the_fields_of_the_draft() -> None:
    """draft-ietf-httpapi-ratelimit-headers-11: structured fields, an item for each policy."""
    layers = Layers(hello, SLOW | {"name": "hourly"})
    first = await layers.ask()
    assert first[b"ratelimit-policy"] == b'"hourly";q=3;w=10800'
    assert first[b"ratelimit"] == b'"hourly";r=2;t=3600' and first[b"x-app"] == b"1"
    assert (await layers.ask())[b"ratelimit"] == b'"hourly";r=1;t=7200'
    await layers.ask()
    last = await layers.ask()
    assert last[b"ratelimit"] == b'"hourly";r=0;t=' + last[b"retry-after"]
    assert last[b"ratelimit-policy"] == first[b"ratelimit-policy"]


@live
async def test_fields_can_be_left_out() -> None:
    layers = Layers(hello, SLOW | {"headers": False})
    told = [await layers.ask() for _ in range(4)]
    assert not any(b"ratelimit" in one for one in told)
    assert b"retry-after" in told[3]


@live
async def test_two_limits_say_a_policy_each() -> None:
    limits = [{"kind": "rate_limit", "name": name, "rate": rate} for name, rate in (("a", "100/s"), ("b", "500/m"))]
    async with Origin(always(ok())) as origin, Site(origin, middleware=limits) as site:
        answer = await site.ask(get())
        assert answer.all(b"ratelimit-policy") == [b'"b";q=8;w=1', b'"a";q=100;w=1']
        assert answer.all(b"ratelimit") == [b'"b";r=7;t=1', b'"a";r=99;t=1']


@live
async def test_a_refusal_charges_no_limit() -> None:
    layers = Layers(hello, SLOW | {"burst": 5}, SLOW | {"burst": 4}, SLOW | {"burst": 2})
    told = [await layers.ask() for _ in range(10)]
    assert [one.status for one in told] == [200] * 2 + [429] * 8
    assert (layers.refused(0), layers.refused(1), layers.refused(2)) == (0, 0, 8)
    narrower = Layers(hello, SLOW | {"burst": 5}, ledger=layers.ledger)  # the outermost one layers
    assert [(await narrower.ask()).status for _ in range(4)] == [200] * 3 + [429]


@live
async def test_what_other_layers_refuse_stays_charged() -> None:
    layers = Layers(hello, SLOW, {"kind": "body_limit", "max": "1B"})
    told = [await layers.ask(b"content-length: 9", method=b"POST", body=[b"x" * 9]) for _ in range(4)]
    assert [one.status for one in told] == [413] * 3 + [429]


@live
async def test_shadow_refuses_nothing_and_says_what_it_would(caplog: pytest.LogCaptureFixture) -> None:
    layers = Layers(hello, SLOW | {"burst": 4}, SLOW | {"mode": "shadow", "burst": 1})
    with caplog.at_level(logging.WARNING):
        told = [await layers.ask() for _ in range(5)]
    assert [one.status for one in told] == [200] * 4 + [429]  # and gives back nothing of the one that enforces
    assert layers.refused(1) == 0 and layers.counted(LAYER_SHADOWED, 1) == 3
    assert [record.message for record in caplog.records] == [
        "route app, layer rate_limit: would have refused 1 requests, the last one of 192.0.2.1"
    ]


@live
async def test_shadow_is_given_back_what_others_refuse_and_tells_clients_nothing() -> None:
    layers = Layers(hello, SLOW | {"mode": "shadow"}, SLOW | {"burst": 1, "headers": False})
    told = [await layers.ask() for _ in range(6)]
    assert [one.status for one in told] == [200] + [429] * 5
    assert layers.counted(LAYER_SHADOWED, 0) == 0
    assert not any(b"ratelimit" in one or b"ratelimit-policy" in one for one in told)


@live
async def test_a_refusal_further_in_says_what_is_left_after_it() -> None:
    layers = Layers(hello, SLOW | {"name": "outer"}, SLOW | {"name": "inner", "burst": 1})
    told = [await layers.ask() for _ in range(2)]
    assert [one.all(b"ratelimit")[1] for one in told] == [b'"outer";r=2;t=3600'] * 2


@live
async def test_a_request_may_cost_more() -> None:
    layers = Layers(hello, SLOW | {"cost": 2, "burst": 5})
    told = [await layers.ask() for _ in range(3)]
    assert [one.status for one in told] == [200, 200, 429]
    assert told[0][b"ratelimit"] == b'"rate_limit";r=3;t=7200'
    assert 3590 < int(told[2][b"retry-after"]) <= 3600  # one is left, one more is needed


@live
@pytest.mark.parametrize(
    ("missing", "statuses"), [("client_ip", [200] * 3 + [429]), ("refuse", [400] * 4), ("pass", [200] * 4)]
)
async def test_a_request_without_a_key(missing: str, statuses: list[int]) -> None:
    layers = Layers(hello, SLOW | {"key": "header:x-tenant", "missing": missing})
    told = [await layers.ask() for _ in range(4)]
    assert [one.status for one in told] == statuses
    assert (await layers.ask(b"x-tenant: a")).status == 200
    if missing == "refuse":
        assert told[0].exchange.reason == "limit_key_missing"


@live
async def test_what_was_used_up_stays_so_when_the_limit_changes() -> None:
    """As after a reload: the same place, another rate."""
    ledger = Ledger.create()
    before = Layers(hello, {"kind": "rate_limit", "rate": "1/h", "burst": 1000}, ledger=ledger)
    assert [(await before.ask()).status for _ in range(10)] == [200] * 10
    narrower = Layers(hello, {"kind": "rate_limit", "rate": "60/h", "burst": 2}, ledger=ledger)
    told = await narrower.ask()
    assert told.status == 429 and int(told[b"retry-after"]) <= 60  # not the ten hours that were owed
    wider = Layers(hello, {"kind": "rate_limit", "rate": "100/s", "burst": 1}, ledger=ledger)
    assert (await wider.ask()).status == 429
    await asyncio.sleep(0.05)
    assert (await wider.ask()).status == 200  # as it was told
    other = Layers(hello, {"kind": "rate_limit", "rate": "1/h"}, ledger=ledger, identity="another")
    assert (await other.ask()).status == 200
    ledger.close()


@live
async def test_addresses_of_one_network_are_one_client() -> None:
    layers = Layers(hello, SLOW)
    told = [await layers.ask(client=f"2001:db8:0:1::{number}") for number in range(4)]
    assert [one.status for one in told] == [200] * 3 + [429]
    assert (await layers.ask(client="2001:db8:0:2::1")).status == 200


@pytest.mark.parametrize(
    ("rate", "burst"), [("50/s", 50), ("0.5/s", 1), ("90/m", 1), ("600/m", 10), ("1/h", 1), ("1000000/s", 1000000)]
)
def test_the_burst_of_those_who_name_none(rate: str, burst: int) -> None:
    assert Options.model_validate({"kind": "rate_limit", "rate": rate}).most == burst


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"rate": "0/s"},
        {"rate": "fast"},
        {"rate": "2000000/s"},
        {"rate": "1/s", "burst": 2, "cost": 3},
        {"rate": "1/h", "burst": 2147483647},
        {"rate": "1/s", "burst": 0},
        {"rate": "1/s", "mode": "observe"},
        {"rate": "1/s", "ipv6_prefix": 129},
        {"rate": "1/s", "store": "http://localhost"},
    ],
)
def test_what_can_not_be_is_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"kind": "rate_limit", **wrong})


def test_rates_are_written_as_they_were() -> None:
    for rate in ("50/s", "1/s", "100/m", "1000/h", "7/h", "0.001/h"):
        options = Options.model_validate({"kind": "rate_limit", "rate": rate})
        again = Options.model_validate(options.model_dump())
        assert again.rate == options.rate
        if rate != "0.001/h":
            assert options.model_dump()["rate"] == rate
