"""What a process knows of documents, and how it has them fetched anew."""

from __future__ import annotations

import asyncio
import os
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.documents import LONGEST, Document, Documents, Look, Wanted, close, heard, said, wanted
from gateway.errors import StartError
from tests.support.descriptors import descriptors
from tests.upstream.peer import live

URL, OTHER = "https://id.test/keys", "https://other.test/keys"


def known(look: Look | None = None, body: bytes | None = b"keys", **more: Any) -> Documents:
    documents = Documents({URL: Wanted(URL, **more)})
    documents.take(URL, look or Look(1, looked=1.0), body)
    return documents


def config(*documents: Wanted) -> Any:
    return SimpleNamespace(documents=lambda: iter(documents))


def test_what_several_layers_want() -> None:
    found = wanted(config(Wanted(URL, 60, 1), Wanted(OTHER), Wanted(URL, 30, 5, min_refresh=10)))
    assert found == {URL: Wanted(URL, 30, 5, min_refresh=10), OTHER: Wanted(OTHER)}
    with pytest.raises(StartError, match="is wanted twice, with different"):
        wanted(config(Wanted(URL), Wanted(URL, ca="ca.pem")))


def test_nothing_is_known_at_first() -> None:
    documents = Documents({URL: Wanted(URL)})
    assert documents.get(URL) is None and documents.trouble(URL)
    assert documents.rows() == [{"url": URL, "bytes": 0, "age_seconds": None, "trouble": "nobody has looked yet"}]


def test_what_is_known_stays_while_there_is_trouble() -> None:
    documents = known()
    documents.take(URL, Look(1, trouble="answered 500"), None)
    found = documents.get(URL)
    assert found is not None and (found.body, found.version, found.trouble) == (b"keys", 1, "answered 500")
    documents.take(URL, Look(2), b"others")
    assert documents.get(URL) == Document(URL, b"others", Look(2)) and documents.trouble(URL) == ""
    assert "others" not in repr(documents.get(URL)), "nobody wants 200 KiB in a log"


def test_trouble_alone_is_no_document() -> None:
    documents = known(Look(trouble="answered 500"), None)
    assert documents.get(URL) is None and documents.trouble(URL) == "answered 500"


@pytest.mark.parametrize(
    "one, stays", [({}, True), ({"refresh": 5.0}, True), ({"ca": "ca.pem"}, False), ({"member": "keys"}, False)]
)
def test_what_outlives_a_reload(one: dict[str, Any], stays: bool) -> None:
    kept = known().kept({URL: Wanted(URL, **one), OTHER: Wanted(OTHER)})
    assert (kept.get(URL) is not None) == stays and kept.get(OTHER) is None
    assert known().kept({}).get(URL) is None


def test_what_outlives_an_upgrade() -> None:
    look = Look(3, 1.0, 2.0, 3.0, 4.0, '"etag"', "answered 500")
    documents = known(look, bytes(range(256)), ca="ca.pem")
    assert Documents({OTHER: Wanted(OTHER)}).dump() == []
    rows = documents.dump()
    found = Documents.load([{"url": "of another program"}, {"wanted": {"strange": 1}}, *rows])
    assert found.get(URL) == Document(URL, bytes(range(256)), look)
    assert found.wanted == documents.wanted
    empty = Documents.load(known(Look(trouble="x"), None).dump())
    assert empty.get(URL) is None and empty.trouble(URL) == "x"


@pytest.mark.parametrize("body", [None, b"", b"keys", b"x" * LONGEST])
def test_messages(body: bytes | None) -> None:
    before = descriptors()
    look = Look(7, etag='"e"')
    message, fds = said(URL, look, body)
    theirs = [os.dup(fd) for fd in fds]
    close(fds)
    assert heard(message, theirs) == (URL, look, body)
    assert descriptors() == before


def asking(documents: Documents) -> list[str]:
    """What the master is asked for."""
    asked: list[str] = []

    def ask(url: str) -> bool:
        asked.append(url)
        return True

    documents.ask = ask
    return asked


@live
async def test_many_who_wait_ask_once() -> None:
    documents = known()
    asked = asking(documents)
    tasks = [asyncio.ensure_future(documents.refresh(URL, 10)) for _ in range(5)]
    await asyncio.sleep(0)
    assert asked == [URL]
    tasks[0].cancel()
    documents.told(*said(URL, Look(2, asked=monotonic()), b"new"))
    assert await asyncio.gather(*tasks[1:]) == [True] * 4
    found = documents.get(URL)
    assert found is not None and found.body == b"new"
    assert not documents._waiting
    assert await documents.refresh(URL, 10) is False, "workers asked for it a moment ago"
    assert asked == [URL]


@live
async def test_after_a_while_it_may_be_asked_for_again() -> None:
    documents = known(Look(1, asked=monotonic() - 31))
    asked = asking(documents)
    assert await documents.refresh(URL, 0.01) is False, "nobody answers"
    assert await documents.refresh(URL, 0.01) is False
    assert asked == [URL, URL] and not documents._waiting


@live
async def test_nobody_waits_in_vain() -> None:
    documents = known()
    assert await documents.refresh(URL, 10) is False, "there is no master"
    asking(documents)
    assert await documents.refresh(OTHER, 10) is False, "it is nobody's"
    task = asyncio.ensure_future(documents.refresh(URL, 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not documents._waiting
