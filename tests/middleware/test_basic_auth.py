"""The layer `basic_auth`: whose password is right, how often it is hashed, and what a file may hold."""

from __future__ import annotations

import asyncio
import logging
import time
import tracemalloc
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.middleware import basic_auth
from gateway.middleware.basic_auth import BasicAuth
from gateway.middleware.identity import verifier
from gateway.middleware.identity.hashing import Hashing
from gateway.middleware.identity.htpasswd import users_of
from gateway.middleware.identity.passwords import Bcrypt
from tests.middleware.hashes import user_line
from tests.middleware.rereading import read_again
from tests.middleware.rig import Answer, Layers


def basic(user: bytes, password: bytes, scheme: bytes = b"Basic") -> bytes:
    return b"authorization: " + scheme + b" " + b64encode(user + b":" + password)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_bytes(b"# staff\n\n" + user_line(b"ann", b"secret") + user_line("Zoë".encode(), "pässword".encode()))
    return path


class Counted:
    """How often a password is hashed. gate: closed, it makes every hash wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.gate = Event()
        self.gate.set()
        matches = Bcrypt.matches

        def counted(one: Bcrypt, password: bytes) -> bool:
            self.count += 1
            assert self.gate.wait(60)
            return matches(one, password)

        monkeypatch.setattr(Bcrypt, "matches", counted)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def run(test: Any) -> None:
    asyncio.run(test)


def refusal(asked: Answer) -> tuple[int, str]:
    assert not asked.passed
    assert asked.exchange.user == ""
    if asked.status == 401:
        assert asked.challenge == 'Basic realm="restricted", charset="UTF-8"'
    return asked.status, asked.reason


MISSING, WRONG, BUSY = (401, "credentials_missing"), (401, "credentials_wrong"), (503, "auth_busy")


def test_a_user(users: Path, hashes: Counted) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users), user_header="X-User")
        for scheme in (b"Basic", b"basic", b"BASIC"):
            for _ in range(3):
                asked = await layer.ask(basic(b"ann", b"secret", scheme), b"x-user: root")
                assert asked.passed and asked.exchange.user == "ann"
                assert asked.told(b"x-user") == [b"ann"]
                assert asked.told(b"authorization") == []
        assert hashes.count == 3
        asked = await layer.ask(basic("Zoë".encode(), "pässword".encode()))
        assert asked.passed and asked.exchange.user == "Zoë" and asked.told(b"x-user") == ["Zoë".encode()]
        await layer.close()

    run(test())


def test_the_password_goes_on_when_it_shall(users: Path) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users), forward=True)
        asked = await layer.ask(basic(b"ann", b"secret"))
        assert asked.told(b"authorization") == [b"Basic " + b64encode(b"ann:secret")]

    run(test())


def test_the_realm(users: Path) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users), realm='the "staff" \\ only')
        asked = await layer.ask()
        assert asked.challenge == 'Basic realm="the \\"staff\\" \\\\ only", charset="UTF-8"'

    run(test())


@pytest.mark.parametrize("line", [b"x: y", b"authorization:", b"authorization: Bearer x", b"authorization: Basicx"])
def test_nobody(users: Path, line: bytes) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users), user_header="x-user")
        assert refusal(await layer.ask(line)) == MISSING
        assert layer.refused() == 1

    run(test())


@pytest.mark.parametrize(
    "value", [b"Basic", b"Basic\t%b", b"basic,%b", b"BASIC=%b", b", Basic %b", b"Bearer x, Basic %b"]
)
def test_nothing_else_of_that_scheme(users: Path, value: bytes) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        right = b64encode(b"ann:secret")
        assert refusal(await layer.ask(b"authorization: " + value.replace(b"%b", right))) == WRONG

    run(test())


@pytest.mark.parametrize(
    "credentials",
    [
        b"ann:Secret",
        b"ann:",
        b"ann",
        b":",
        b":secret",
        b"ANN:secret",
        b"ann:secret\0",
        b"ann:secret\0more",
        b"ann\0:secret",
        b"ann:secret\n",
        b"ann:" + b"s" * 73,
        b"ann:" + b"s" * 5000,
        b"Zo\xeb:p\xe4ssword",  # Latin-1, where UTF-8 was asked for
        b"\xff:\xff",
        b"bob:secret",
        b"# staff:secret",
    ],
)
def test_wrong_ones(users: Path, credentials: bytes) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        for _ in range(2):
            assert refusal(await layer.ask(b"authorization: Basic " + b64encode(credentials))) == WRONG

    run(test())


@pytest.mark.parametrize(
    "coded",
    [b"YW5uOnNlY3JldA", b"YW5uOnNlY3JldA===", b"YW5u OnNlY3JldA==", b"YW5uOnNlY3JldA==, Basic x", b"!", b"\xc3\xa4"],
)
def test_not_base64(users: Path, coded: bytes) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        assert (await layer.ask(b"authorization: Basic YW5uOnNlY3JldA==")).passed
        assert refusal(await layer.ask(b"authorization: Basic " + coded)) == WRONG

    run(test())


@given(st.binary(max_size=60).filter(lambda raw: b"\r" not in raw and b"\n" not in raw and b"\0" not in raw))
def test_any_bytes(given: bytes) -> None:
    found = basic_auth._read(b"basic " + given)
    assert found is None or found[0]


def test_as_long_as_the_hash_looks(tmp_path: Path) -> None:
    """bcrypt takes no notice of what is behind 72 bytes: a longer password isn't the user's, however it begins."""
    users = tmp_path / "htpasswd"
    users.write_bytes(user_line(b"ann", b"s" * 72))

    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        assert (await layer.ask(basic(b"ann", b"s" * 72))).passed
        assert refusal(await layer.ask(basic(b"ann", b"s" * 73))) == WRONG

    run(test())


# How often a password is hashed.


def test_who_does_not_exist_takes_as_long(users: Path, hashes: Counted) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        for name in (b"bob", b"eve", b"root"):
            assert refusal(await layer.ask(basic(name, b"secret"))) == WRONG
        assert hashes.count == 3
        # Not even with the password of the one whose hash it was.
        for password in (b"secret", "pässword".encode()):
            for name in (b"a", b"b", b"c", b"d", b"e", b"f"):
                assert refusal(await layer.ask(basic(name, password))) == WRONG

    run(test())


def test_it_is_somebody_elses_hash_always_the_same(users: Path) -> None:
    made = Layers.of(BasicAuth, htpasswd=str(users)).layers[0]._users
    read = made._file.value
    taken = {name: made._somebody(name, read) for name in map(str, range(50))}
    assert {one.text for one in taken.values()} == {one.text for one in users_of(users.read_bytes()).values()}
    assert all(made._somebody(name, read) is one for name, one in taken.items())


def test_who_does_not_exist_takes_no_longer_in_a_long_file(tmp_path: Path) -> None:
    """Nothing is done with each of the others, not even a list of them made."""
    users = tmp_path / "htpasswd"
    users.write_bytes(b"".join(user_line(b"user%d" % number, b"x") for number in range(1000)))
    made = Layers.of(BasicAuth, htpasswd=str(users)).layers[0]._users
    read = made._file.value
    made._somebody("warm", read)
    tracemalloc.start()
    try:
        made._somebody("nobody", read)
        assert tracemalloc.get_traced_memory()[1] < 4000
    finally:
        tracemalloc.stop()


def test_a_wrong_password_is_hashed_once_in_a_while(
    users: Path, hashes: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        for _ in range(5):
            assert refusal(await layer.ask(basic(b"ann", b"wrong"))) == WRONG
        assert hashes.count == 1
        now = time.monotonic()
        monkeypatch.setattr("time.monotonic", lambda: now + 6)
        assert refusal(await layer.ask(basic(b"ann", b"wrong"))) == WRONG
        assert hashes.count == 2

    run(test())


def test_a_password_is_hashed_again_after_a_time(users: Path, hashes: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users), remember="10s")
        assert (await layer.ask(basic(b"ann", b"secret"))).passed
        now = time.monotonic()
        monkeypatch.setattr("time.monotonic", lambda: now + 11)
        assert (await layer.ask(basic(b"ann", b"secret"))).passed
        assert hashes.count == 2

    run(test())


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_one_hash_for_all_who_ask_the_same(users: Path, hashes: Counted) -> None:
    """Also when the first of them goes away."""

    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        hashes.gate.clear()
        asks = [asyncio.ensure_future(layer.ask(basic(b"ann", b"secret"))) for _ in range(5)]
        await turns()
        asks.pop(0).cancel()
        hashes.gate.set()
        assert all(asked.passed for asked in await asyncio.gather(*asks))
        assert hashes.count == 1

    run(test())


def test_no_more_than_so_many_wait(users: Path, hashes: Counted) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users), checks=1, waiting=2)
        assert (await layer.ask(basic(b"ann", b"secret"))).passed
        hashes.gate.clear()
        asks = [asyncio.ensure_future(layer.ask(basic(b"ann", b"%d" % number))) for number in range(5)]
        await turns()
        assert [refusal(ask.result()) for ask in asks if ask.done()] == [BUSY] * 2
        assert (await layer.ask(basic(b"ann", b"secret"))).passed  # who is known needn't wait
        hashes.gate.set()
        assert {refusal(await ask) for ask in asks} == {BUSY, WRONG}
        assert refusal(await layer.ask(basic(b"ann", b"6"))) == WRONG

    run(test())


def test_layers_share_what_time_passwords_may_take(
    users: Path, hashes: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody else waits for it."""
    monkeypatch.setattr(verifier, "HASHING", Hashing())

    async def test() -> None:
        layers = [Layers.of(BasicAuth, htpasswd=str(users), checks=2) for _ in range(3)]
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(6))
        hashes.gate.clear()
        asks = [
            asyncio.ensure_future(layer.ask(basic(b"ann", b"%d" % number))) for layer in layers for number in (1, 2)
        ]
        while hashes.count < 2:  # noqa: ASYNC110 (a thread tells)
            await asyncio.sleep(0.001)
        at_once = await asyncio.to_thread(lambda: hashes.count)
        hashes.gate.set()
        assert at_once == 2
        assert {refusal(await ask) for ask in asks} == {WRONG} and hashes.count == 6

    run(test())


def test_a_worker_that_ends(users: Path, hashes: Counted) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        hashes.gate.clear()
        ask = asyncio.ensure_future(layer.ask(basic(b"ann", b"secret")))
        await turns()
        await layer.close()
        hashes.gate.set()
        assert refusal(await ask) == WRONG

    run(test())


# The file.


def replace(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink()
        return
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


@pytest.mark.usefixtures("soon")
def test_a_file_that_changes(users: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        assert (await layer.ask(basic(b"ann", b"secret"))).passed
        assert refusal(await layer.ask(basic(b"ann", b"other"))) == WRONG
        replace(users, user_line(b"ann", b"other"))
        await read_again(layer.layers[0]._users._file)
        assert refusal(await layer.ask(basic(b"ann", b"secret"))) == WRONG  # though it was known
        assert (await layer.ask(basic(b"ann", b"other"))).passed  # though it was known as a wrong one
        for bad in (b"", b"ann:secret\n", user_line(b"ann", b"third") + b"bob:$apr1$x$y\n"):
            replace(users, bad)
            await read_again(layer.layers[0]._users._file)
            assert (await layer.ask(basic(b"ann", b"other"))).passed
        assert caplog.text.count("stays in use") == 3
        assert 'line 2, user "bob" has an MD5 hash (apr1)' in caplog.text
        assert all(one.levelno == logging.ERROR for one in caplog.records if "stays in use" in one.message)
        replace(users, None)
        await read_again(layer.layers[0]._users._file)
        assert (await layer.ask(basic(b"ann", b"other"))).passed
        replace(users, user_line(b"bob", b"other"))
        await read_again(layer.layers[0]._users._file)
        assert refusal(await layer.ask(basic(b"ann", b"other"))) == WRONG

    run(test())


@pytest.mark.usefixtures("soon")
def test_a_file_that_changes_while_a_password_is_hashed(users: Path, hashes: Counted) -> None:
    async def test() -> None:
        layer = Layers.of(BasicAuth, htpasswd=str(users))
        hashes.gate.clear()
        ask = asyncio.ensure_future(layer.ask(basic(b"ann", b"secret")))
        await turns()
        replace(users, user_line(b"bob", b"secret"))
        await read_again(layer.layers[0]._users._file)
        hashes.gate.set()
        assert refusal(await ask) == WRONG

    run(test())


def test_options_that_are_no_good() -> None:
    for name in ("cookie", "x_user", "connection"):
        with pytest.raises(ValidationError, match=r"means something else|are dropped"):
            BasicAuth.OPTIONS.model_validate({"htpasswd": "a", "user_header": name})
