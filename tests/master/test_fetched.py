"""What the master does with what was fetched, with children that read and others that don't."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from gateway.child import hear
from gateway.config.model import Config
from gateway.documents import Documents, Look, Wanted, said
from gateway.documents import heard as read
from gateway.log import Files
from gateway.master.children import Child
from gateway.master.fetched import Fetched
from gateway.master.generation import Generation
from gateway.scoreboard import Role, Scoreboard, State

URL, OTHER = "http://id.test/keys", "http://other.test/keys"


class House:
    """A master's part of documents with generations and children that a test makes."""

    def __init__(self) -> None:
        self.board = Scoreboard.create()
        self.fetched = Fetched()
        self.children: list[Child] = []
        self.theirs: dict[Child, socket.socket] = {}
        self.current = self.generation(1, Wanted(URL), Wanted(OTHER))
        self.starting: Generation | None = None

    def generation(self, number: int, *wanted: Wanted) -> Generation:
        config = Config.model_validate(
            {"listeners": [{"name": "web", "listen": "127.0.0.1:0"}], "log": {"access": "off"}}
        )
        documents = Documents({one.url: one for one in wanted})
        return Generation(number, config, Files(config.log), documents=documents)

    def child(self, generation: int = 1, role: Role = Role.WORKER) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (ours, theirs):
            sock.setblocking(False)
        seat = len(self.children) + 1
        child = Child(role, seat, generation, seat, self.board.take(seat, []), 1, ours, {}, set(), state=State.READY)
        self.children.append(child)
        self.theirs[child] = theirs
        return child

    def say(self, by: Child, body: bytes | None, url: str = URL, version: int = 1, trouble: str = "") -> None:
        message, fds = said(url, Look(version, looked=1.0, trouble=trouble), body)
        self.fetched.heard(by, (self.starting, self.current), self.children, message, fds)

    def turn(self) -> None:
        self.fetched.turn(self.current, self.starting, self.children)

    def told(self, child: Child) -> list[tuple[str, int, bytes | None]]:
        found: list[tuple[str, int, bytes | None]] = []
        while True:
            try:
                message, fds = hear(self.theirs[child])
            except BlockingIOError:
                return found
            assert message is not None and message["do"] == "document"
            url, look, body = read(message, fds)
            found.append((url, look.version, body))


@pytest.fixture
def house() -> Iterator[House]:
    one = House()
    yield one
    for child, theirs in one.theirs.items():
        child.channel.close()
        theirs.close()


def test_every_worker_of_the_generation_is_told(house: House) -> None:
    observer, one, two = house.child(role=Role.OBSERVER), house.child(), house.child()
    old = house.child(generation=0)
    house.say(observer, b"keys")
    assert house.fetched.owes() and house.fetched.owes(house.current)
    house.turn()
    assert not house.fetched.owes()
    assert house.told(one) == house.told(two) == [(URL, 1, b"keys")]
    assert house.told(observer) == house.told(old) == []
    document = house.current.documents.get(URL)
    assert document is not None and document.body == b"keys"


def test_versions_are_counted_here(house: House) -> None:
    """Observers come and go; a worker must see each change."""
    observer, worker = house.child(role=Role.OBSERVER), house.child()
    for body, version in ((b"a", 1), (b"a", 1), (b"b", 1), (None, 1), (b"c", 7)):
        house.say(observer, body, version=version)
        house.turn()
        house.told(worker)
    document = house.current.documents.get(URL)
    assert document is not None and (document.version, document.body) == (3, b"c")


def test_one_that_does_not_read_gets_the_newest_later(house: House) -> None:
    observer, worker = house.child(role=Role.OBSERVER), house.child()
    house.say(observer, b"a")
    house.turn()
    house.say(observer, b"b")
    house.say(observer, None)
    house.say(observer, b"other", url=OTHER)
    house.turn()
    assert house.fetched.owes()
    assert house.told(worker) == [(URL, 1, b"a")]
    house.turn()
    assert house.told(worker) == [(URL, 2, b"b")]
    house.turn()
    assert house.told(worker) == [(OTHER, 1, b"other")]
    assert not house.fetched.owes()
    house.say(observer, None)
    house.turn()
    assert house.told(worker) == [(URL, 2, None)], "no body that it has"


def test_who_is_gone_is_owed_nothing(house: House) -> None:
    observer, worker = house.child(role=Role.OBSERVER), house.child()
    house.say(observer, b"a")
    house.children.remove(worker)
    house.turn()
    assert not house.fetched.owes()


def test_what_one_generation_fetches_holds_for_the_next(house: House) -> None:
    observer = house.child(role=Role.OBSERVER)
    house.starting = house.generation(2, Wanted(URL), Wanted(OTHER, ca="ca.pem"))
    worker = house.child(generation=2)
    house.say(observer, b"keys")
    house.say(observer, b"others", url=OTHER)
    house.turn()
    assert house.told(worker) == [(URL, 1, b"keys")]
    assert house.starting.documents.get(OTHER) is None, "it trusts others"
    stranger = house.child(generation=9, role=Role.OBSERVER)
    house.say(stranger, b"late")
    house.say(observer, b"x", url="http://nobody.test/")
    document = house.current.documents.get(URL)
    assert document is not None and document.body == b"keys"


def test_a_new_generation_begins_with_what_is_known(house: House) -> None:
    house.say(house.child(role=Role.OBSERVER), b"keys")
    new = house.generation(2)
    house.fetched.begin(house.current, new)
    assert not new.documents.wanted and not new.is_observed
    assert house.current.is_observed
    house.fetched.begin(None, new)
    assert not new.documents.wanted


def test_a_worker_asks_the_observer_of_its_generation(house: House) -> None:
    observer, worker = house.child(role=Role.OBSERVER), house.child()
    other = house.child(generation=2, role=Role.OBSERVER)
    house.fetched.asked(worker, house.children, {"url": URL})
    message, _ = hear(house.theirs[observer])
    assert message == {"do": "refresh", "url": URL}
    with pytest.raises(BlockingIOError):
        hear(house.theirs[other])
