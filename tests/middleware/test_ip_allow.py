"""Clients by their address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.errors import Absent, StartError
from gateway.middleware.ip_allow import IpAllow
from tests.listeners.site import get
from tests.middleware.rig import Inner, ask, layer
from tests.middleware.surroundings import place, refused
from tests.upstream.peer import live


async def comes_in(client: str, **options: Any) -> bool:
    inner, there = Inner(b"ok"), place()
    answer = await ask(layer(IpAllow, inner, there, **options), get(), client=client)
    if inner.was_asked:
        assert answer.status == 200 and not refused(there)
    else:
        assert (answer.status, answer.reason, refused(there)) == (403, "address_denied", 1)
    return inner.was_asked


@live
async def test_those_who_are_allowed() -> None:
    allow = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]
    for client in ("10.1.2.3", "192.0.2.7", "2001:db8::5"):
        assert await comes_in(client, allow=allow)
    for client in ("11.0.0.1", "192.0.2.8", "2001:db9::5", "unix"):
        assert not await comes_in(client, allow=allow)


@live
async def test_those_who_are_denied() -> None:
    assert await comes_in("192.0.2.1", deny=["10.0.0.0/8"])
    assert await comes_in("unix", deny=["10.0.0.0/8"])
    assert not await comes_in("10.0.0.1", deny=["10.0.0.0/8"])
    assert not await comes_in("10.6.0.1", allow=["10.0.0.0/8"], deny=["10.6.0.0/16"])
    assert await comes_in("10.7.0.1", allow=["10.0.0.0/8"], deny=["10.6.0.0/16"])


@live
async def test_unix_sockets_and_mapped_addresses() -> None:
    assert await comes_in("unix", allow=["unix"])
    assert not await comes_in("unix", deny=["unix"])
    assert await comes_in("::ffff:10.0.0.1", allow=["10.0.0.0/8"])
    assert not await comes_in("10.0.0.1", deny=["::ffff:10.0.0.0/104"])
    assert not await comes_in("10.0.0.1", allow=["::/0"])


@live
async def test_files(tmp_path: Path) -> None:
    file = tmp_path / "office.txt"
    file.write_text("# the office\n10.0.0.0/8\n\n192.0.2.7 # the printer\r\nunix\n")
    for client in ("10.0.0.1", "192.0.2.7", "unix", "203.0.113.1"):
        assert await comes_in(client, allow=["203.0.113.1"], allow_file=str(file))
        assert await comes_in(client, deny_file=str(file)) == (client == "203.0.113.1")


@live
async def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "nobody.txt"
    file.write_text("# nobody yet\n")
    assert not await comes_in("10.0.0.1", allow_file=str(file))
    assert await comes_in("10.0.0.1", deny_file=str(file))


def test_files_that_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "wrong.txt"
    file.write_text("10.0.0.0/8\n10.0.0.1/8\n")
    with pytest.raises(StartError, match=r"allow_file: .*wrong\.txt:2: expected a network, got an address inside"):
        layer(IpAllow, Inner(), allow_file=str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StartError, match="is not UTF-8"):
        layer(IpAllow, Inner(), allow_file=str(file))
    with pytest.raises(Absent, match=r"deny_file: .*none\.txt: there is no such file"):
        layer(IpAllow, Inner(), deny_file=str(tmp_path / "none.txt"))


@pytest.mark.parametrize("options", [{}, {"allow": []}, {"allow": ["10.0.0.1/8"]}, {"deny": ["everybody"]}])
def test_options_that_are_wrong(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        layer(IpAllow, Inner(), **options)


@live
async def test_thousands_of_networks() -> None:
    networks = [f"10.{high}.{low}.0/25" for high in range(64) for low in range(256)]
    one = layer(IpAllow, Inner(), allow=networks)
    for number in range(5000):  # more than are remembered
        address = f"10.{number % 64}.{number % 256}.{number % 128}"
        assert (await ask(one, get(), client=address)).status == 200
        outside = f"10.{number % 64}.{number % 256}.{128 + number % 128}"
        assert (await ask(one, get(), client=outside)).status == 403
