"""Documents that workers need from a URL: fetched once for all of them, and kept whatever happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.disturbances import DISTURBANCES
from tests.support.gateway_process import Gateway, Start
from tests.support.http import get
from tests.support.issuer import Issuer
from tests.support.metrics import Metrics
from tests.support.settings import Settings
from tests.support.waiting import eventually, not_within, steadily

LAYER = Path(__file__).parents[1] / "support" / "document_layer"


@pytest.fixture(autouse=True)
def _kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the program that follows in an upgrade, and for the command line."""
    monkeypatch.setenv("PYTHONPATH", str(LAYER))


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as one:
        yield one


def config(
    url: str, refresh: str = "5m", min_refresh: str = "30s", *, admin: bool = True, workers: int = 2
) -> Settings:
    layer = f'{{ kind = "document", url = "{url}", refresh = "{refresh}", min_refresh = "{min_refresh}" }}'
    where = "127.0.0.1:0" if admin else None
    route = f'[[routes]]\nname = "document"\nmethods = ["GET"]\nupstream = "app"\nmiddleware = [{layer}]\n'
    return Settings("127.0.0.1:1", workers=workers, admin=where, more=route)


def known(address: str, target: str = "/") -> dict[str, Any]:
    """What the worker that happens to be asked knows."""
    return dict(json.loads(get(address, target).body))


def everybody(one: Gateway, workers: int = 2) -> list[dict[str, Any]]:
    """What each worker knows."""
    address = one.address()
    found: dict[int, dict[str, Any]] = {}
    for _ in range(200):
        facts = known(address)
        found[facts["pid"]] = facts
        if len(found) == workers:
            return list(found.values())
    raise AssertionError(f"only {len(found)} of {workers} workers were ever asked")


def bodies(one: Gateway, workers: int = 2) -> set[str | None]:
    return {facts.get("body") for facts in everybody(one, workers)}


def all_have(one: Gateway, body: str) -> Callable[[], bool]:
    return lambda: bodies(one) == {body}


def row(one: Gateway) -> dict[str, Any]:
    [found] = one.status()["documents"]
    return dict(found)


def test_once_for_all_workers_and_before_the_first_request(gateway: Start, issuer: Issuer) -> None:
    one = gateway(config(issuer.url, workers=3))
    assert bodies(one, 3) == {'{"keys": [1]}'}
    assert issuer.asked == 1
    assert Metrics(one.admin)("gateway_document_up", url=issuer.url) == 1
    assert (row(one)["bytes"], row(one)["trouble"]) == (13, "")
    assert f"{issuer.url}: fetched, 13 bytes" in one.log()


def test_it_is_looked_at_again_and_again(gateway: Start, issuer: Issuer) -> None:
    one = gateway(config(issuer.url, refresh="200ms"))
    [version] = {facts["version"] for facts in everybody(one)}
    eventually(lambda: issuer.confirmed > 2)
    assert {facts["version"] for facts in everybody(one)} == {version}, "nothing has changed"
    issuer.body = b'{"keys": [2]}'
    eventually(all_have(one, '{"keys": [2]}'))
    assert {facts["version"] for facts in everybody(one)} == {version + 1}
    issuer.body = b'{"keys": "%b"}' % (b"x" * 200_000)
    eventually(all_have(one, issuer.body.decode()), "more than one message holds")


def test_while_it_can_not_be_fetched_nobody_notices(gateway: Start, issuer: Issuer) -> None:
    one = gateway(config(issuer.url, refresh="200ms"))
    newest = '{"keys": [1]}'
    for number, end in enumerate(("500", "page", "dead"), 2):
        if end == "dead":
            issuer.stop()
        elif end == "500":
            issuer.status = 500
        else:
            issuer.body = b"<html>we are sorry</html>"
        eventually(lambda: row(one)["trouble"], end)
        steadily(all_have(one, newest), 1.0, end)
        assert Metrics(one.admin)("gateway_document_up", url=issuer.url) == 0, end
        if end == "dead":
            assert "fetching fails" in one.cli("status", terminal=True).stdout
            for disturbance, disturb in DISTURBANCES.items():
                disturb(one)
                one.settled(2)
                assert bodies(one) == {newest}, disturbance
        newest = f'{{"keys": [{number}]}}'
        issuer.status, issuer.body = 200, newest.encode()
        if end == "dead":
            issuer.start()
        eventually(all_have(one, newest), end, timeout=40)
        assert not row(one)["trouble"], end
        log = one.log()
        assert log.count(f"{issuer.url}: fetching works again") == number - 1, end
        told = [line for line in log.splitlines() if "fetching fails" in line]
        assert len(told) == number - 1 and "the last one stays in use" in told[-1], end


def test_it_outlives_us(gateway: Start, issuer: Issuer) -> None:
    one = gateway(config(issuer.url))
    before = {facts["version"] for facts in everybody(one)}
    for disturbance, disturb in DISTURBANCES.items():
        disturb(one)
        one.settled(2)
        assert bodies(one) == {'{"keys": [1]}'}, disturbance
        assert {facts["version"] for facts in everybody(one)} == before, disturbance
        assert issuer.asked == 1, f"{disturbance}: it is young, and nobody has asked for it anew"


def test_an_issuer_that_is_down_at_the_start(gateway: Start, issuer: Issuer) -> None:
    issuer.stop()
    one = gateway(config(issuer.url, admin=False))
    assert get(one.address()).status == 503
    assert "there is none to use" in one.log()
    issuer.start()
    eventually(all_have(one, '{"keys": [1]}'))


def test_an_issuer_that_is_slow_at_the_start(gateway: Start, issuer: Issuer) -> None:
    """It is waited for, but not for long."""
    issuer.gate.clear()
    with not_within(1.5):
        one = gateway(config(issuer.url))
    assert get(one.address()).status == 503
    issuer.gate.set()
    eventually(all_have(one, '{"keys": [1]}'))
    assert issuer.asked == 1


def test_workers_may_ask_for_it_anew(gateway: Start, issuer: Issuer) -> None:
    one = gateway(config(issuer.url, min_refresh="2s"))
    everybody(one)
    address = one.address()
    issuer.body = b'{"keys": [2]}'
    issuer.gate.clear()
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(known, address, "/anew") for _ in range(20)]
        eventually(lambda: issuer.asked == 2)
        assert known(address)["body"] == '{"keys": [1]}', "who lacks nothing waits for nothing"
        issuer.gate.set()
        assert {answer.result()["body"] for answer in answers} == {'{"keys": [2]}'}
    assert issuer.asked == 2, "one look for all of them"
    issuer.body = b'{"keys": [3]}'
    for _ in range(20):
        assert known(address, "/anew")["looked"] is False
    assert issuer.asked == 2
    eventually(lambda: known(address, "/anew")["body"] == '{"keys": [3]}')
    assert issuer.asked == 3


def test_another_one_after_a_reload(gateway: Start, issuer: Issuer) -> None:
    one = gateway(config(issuer.url))
    with Issuer(b'{"keys": ["other"]}') as other:
        one.write(config(other.url))
        assert one.reload().returncode == 0
        one.settled(2)
        assert bodies(one) == {'{"keys": ["other"]}'}, "a generation has its documents before it goes"
        assert (issuer.asked, other.asked) == (1, 1)
        assert [one["url"] for one in one.status()["documents"]] == [other.url]
