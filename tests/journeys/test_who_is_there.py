"""Who may use a route, where several processes must agree on it: keys that change, and files that do."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from tests.middleware.tokens import key_document, public_jwk, token
from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client
from tests.support.issuer import Issuer
from tests.support.metrics import Metrics
from tests.support.settings import Settings
from tests.support.waiting import eventually


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer(key_document(public_jwk("ES256"))) as one:
        yield one


def guarded(settings: Settings, layer: str) -> Settings:
    route = f'[[routes]]\nname = "guarded"\nmethods = ["GET"]\nupstream = "app"\nmiddleware = [{layer}]\n'
    return settings.but(workers=2, more=route)


def statuses(one: Gateway, fields: dict[str, str], times: int = 20) -> set[int]:
    """What workers say, each on a connection of its own: of so many the most hear some."""
    found, address = set(), one.address()
    for _ in range(times):
        with Client(address) as client:
            client.send("GET", "/", fields=fields)
            found.add(client.answer().status)
    return found


def bearer(written: bytes) -> dict[str, str]:
    return {"authorization": f"Bearer {written.decode()}"}


def test_keys_that_an_issuer_changes(gateway: Start, settings: Settings, issuer: Issuer) -> None:
    layer = f'{{ kind = "jwt", jwks = "{issuer.url}", algorithms = ["ES256"], audience = "api" }}'
    one = gateway(guarded(settings, layer))
    old, new = token(), token("ES256", 1)
    assert statuses(one, bearer(old)) == {200}
    assert issuer.asked == 1
    issuer.body = key_document(public_jwk("ES256"), public_jwk("ES256", 1))
    assert statuses(one, bearer(new)) == {200}, "the first one had it fetched"
    assert issuer.asked == 2
    for number in range(20):
        assert statuses(one, bearer(token("ES256", 2, header={"kid": f"made up {number}"})), 1) == {401}
    assert issuer.asked == 2, "whoever makes names up costs the issuer nothing"
    issuer.stop()
    assert statuses(one, bearer(old)) == statuses(one, bearer(new)) == {200}
    assert Metrics(one.admin)("gateway_layer_refused_total", route="guarded", layer="jwt") == 20


def test_no_keys(gateway: Start, settings: Settings, issuer: Issuer) -> None:
    issuer.status = 500
    layer = f'{{ kind = "jwt", jwks = "{issuer.url}", algorithms = ["ES256"], audience = "api", refresh = "1s" }}'
    one = gateway(guarded(settings, layer))
    assert statuses(one, bearer(token()), 1) == {503}
    assert statuses(one, {}, 1) == {401}
    issuer.status = 200
    eventually(lambda: statuses(one, bearer(token())) == {200})


def test_users_who_come_and_go(gateway: Start, settings: Settings, tmp_path: Path) -> None:
    """Without a reload, in every worker; the path is relative to the configuration."""

    folder = tmp_path / "g0"
    folder.mkdir()

    def write(name: str) -> None:
        new = folder / "new"
        new.write_bytes(f"{name}:".encode() + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
        new.rename(folder / "htpasswd")

    def basic(name: str) -> dict[str, str]:
        return {"authorization": "Basic " + b64encode(f"{name}:secret".encode()).decode()}

    write("ann")
    one = gateway(guarded(settings, '{ kind = "basic_auth", htpasswd = "htpasswd" }'))
    assert statuses(one, basic("ann")) == {200} and statuses(one, basic("bob"), 3) == {401}
    write("bob")
    eventually(lambda: statuses(one, basic("bob")) == {200})
    assert statuses(one, basic("ann")) == {401}
    (folder / "htpasswd").write_text("bob:secret\n")
    wrong = 'line 1, user "bob" has a DES hash (crypt), or a password in plain text'
    eventually(lambda: statuses(one, basic("bob")) == {200} and wrong in one.log())
    checked = one.cli("check")
    assert checked.returncode and 'line 1, user "bob" has a DES hash' in checked.stderr + checked.stdout
    reloaded = one.reload()
    assert reloaded.returncode and statuses(one, basic("bob")) == {200}
