"""What the master does with what was found, with children that read and others that don't, and a clock of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.child import hear
from gateway.config.model import Config
from gateway.errors import StartError
from gateway.findings import Findings
from gateway.log import Files
from gateway.master.children import Child
from gateway.master.discovered import Discovered
from gateway.master.generation import Generation
from gateway.metrics.plan import FLIGHT, UPSTREAM_OPEN, Plan
from gateway.scoreboard import SEAT_CELLS, Condition, Mark, Role, Scoreboard
from gateway.truth import Truth

DNS = {"discovery": {"kind": "dns", "name": "app.test", "port": 80}}
OTHER = {"discovery": {"kind": "dns", "name": "other.test", "port": 80}}


def config(**upstreams: Any) -> Config:
    return Config.model_validate(
        {
            "listeners": [{"name": "web", "listen": "127.0.0.1:0"}],
            "log": {"access": "off"},
            "upstreams": upstreams or {"app": DNS},
        }
    )


class House:
    """A master's part of discovery with generations and children that a test makes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.board = Scoreboard.create()
        self.plan = Plan()
        self.truth = Truth(self.board)
        self.discovered = Discovered(self.board, self.plan, lambda: self.now)
        self.children: list[Child] = []
        self.theirs: dict[Child, socket.socket] = {}
        self.current = self.generation(1)
        self.starting: Generation | None = None

    def generation(self, number: int, **upstreams: Any) -> Generation:
        one = config(**upstreams)
        return Generation(number, one, Files(one.log))

    def child(self, generation: int = 1) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (ours, theirs):
            sock.setblocking(False)
        seat = len(self.children) + 1
        cells = self.board.take(seat, [])
        child = Child(Role.WORKER, seat, generation, seat, cells, 1, ours, {}, set())
        self.children.append(child)
        self.theirs[child] = theirs
        return child

    def say(self, *addresses: str, trouble: str = "", name: str = "app", about: Generation | None = None) -> None:
        part = {"endpoints": [{"address": address} for address in addresses], "trouble": trouble}
        self.discovered.heard(about or self.current, self.children, {"found": {name: part}})

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.discovered.turn(self.current, self.starting, self.children)

    def told(self, child: Child) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        while True:
            try:
                message, _ = hear(self.theirs[child])
            except BlockingIOError:
                return messages
            assert message is not None
            messages.append(message)

    def found(self, name: str = "app") -> list[str]:
        return [str(one.address) for one in self.current.findings.found.get(name, ())]

    def record(self, endpoint: str) -> Any:
        return self.truth.record(self.plan.blocks["endpoint"]["app", endpoint])


@pytest.fixture
def house() -> Iterator[House]:
    one = House()
    yield one
    for child, theirs in one.theirs.items():
        child.channel.close()
        theirs.close()


def lists(messages: list[dict[str, Any]], name: str = "app") -> list[list[str]]:
    return [
        [row["address"] for row in message["found"][name]["endpoints"]]
        for message in messages
        if name in message["found"]
    ]


def test_every_child_of_the_generation_is_told_where_the_cells_are(house: House) -> None:
    one, two, old = house.child(), house.child(), house.child(generation=0)
    house.say("a:1", "b:1")
    assert house.discovered.owes() and house.discovered.owes(house.current)
    house.turn()
    assert not house.discovered.owes()
    [message] = house.told(one)
    assert house.told(two) == [message] and house.told(old) == []
    part = message["found"]["app"]
    assert part["places"] == [house.plan.places("app", "a:1"), house.plan.places("app", "b:1")]
    assert all(part["places"]) and part["trouble"] == ""
    assert house.found() == ["a:1", "b:1"]


def test_one_that_does_not_read_gets_the_last_list_when_it_does(house: House) -> None:
    slow, quick = house.child(), house.child()
    house.say("a:1")
    house.turn()
    house.told(quick)
    for number in range(500):
        house.say(f"b:{number + 1}")
        house.turn()
        assert lists(house.told(quick)) == [[f"b:{number + 1}"]]
    assert house.discovered.owes()
    assert lists(house.told(slow)) == [["a:1"]], "one message, and room for orders"
    house.turn()
    assert lists(house.told(slow)) == [["b:500"]]
    assert not house.discovered.owes()


def test_more_than_a_message_holds_comes_in_several(house: House) -> None:
    names = {f"up{number}": DNS for number in range(8)}
    house.current = house.generation(1, **names)
    child = house.child()
    for name in names:
        house.say(*(f"{'x' * 60}{number}:1" for number in range(150)), name=name)
    told: list[str] = []
    for _ in range(8):
        house.turn()
        [message] = house.told(child) or [{"found": {}}]
        told += message["found"]
    assert told == list(names)


def test_trouble_is_told_and_changes_no_list(house: House) -> None:
    child = house.child()
    house.say("a:1")
    house.turn()
    house.told(child)
    ill: dict[str, Any] = {
        "found": {"app": {"endpoints": None, "trouble": "it is so"}, "nobody": {"endpoints": [], "trouble": ""}}
    }
    house.discovered.heard(house.current, house.children, ill)
    house.turn()
    [message] = house.told(child)
    assert message["found"]["app"]["trouble"] == "it is so" and lists([message]) == [["a:1"]]
    assert (house.found(), house.current.findings.trouble) == (["a:1"], {"app": "it is so"})
    house.say("a:1")
    assert house.current.findings.trouble == {}


def test_newcomers_are_up_since_now_but_not_at_the_very_first(house: House) -> None:
    house.say("a:1")
    assert house.record("a:1")[Mark.SINCE] == 0
    version = house.truth.version
    house.say("a:1", "b:1")
    assert house.record("a:1")[Mark.SINCE] == 0 < house.record("b:1")[Mark.SINCE]
    assert house.truth.version > version
    house.record("a:1")[Mark.CONDITION] = Condition.DOWN
    house.record("a:1")[Mark.SINCE] = 7
    house.say("b:1")
    house.say("a:1", "b:1")
    assert (house.record("a:1")[Mark.CONDITION], house.record("a:1")[Mark.SINCE]) == (Condition.DOWN, 7)


def test_a_new_generation_takes_over_what_is_looked_up_as_before(house: House) -> None:
    house.current = house.generation(1, app=DNS, moved=DNS)
    house.say("a:1")
    house.say("b:1", name="moved")
    new = house.generation(2, app=DNS | {"outlier": {"failure_ratio": "50%"}}, moved=OTHER)
    house.discovered.begin(house.current, new)
    assert {name: [str(one.address) for one in found] for name, found in new.findings.found.items()} == {"app": ["a:1"]}
    assert "window" in house.plan.places("app", "a:1"), "what its configuration counts has cells"
    house.discovered.begin(None, house.generation(3))


# Endpoints that are gone.


def test_who_is_gone_for_long_gives_its_cells_back(house: House) -> None:
    child = house.child()
    house.say("a:1", "b:1")
    house.turn()
    house.told(child)
    places = house.plan.places("app", "a:1")
    house.record("a:1")[Mark.EJECTED] = 5
    child.cells[places["upstream"]] = 99
    house.say("b:1")
    house.turn(10)  # now it is seen that it is nobody's
    house.told(child)
    house.turn(599)
    assert house.plan.places("app", "a:1") == places and house.told(child) == []
    house.turn(6)
    assert house.plan.places("app", "a:1") == {}
    house.turn()
    assert house.told(child) == [{"do": "endpoints", "found": {}, "gone": [["app", "a:1"]]}]
    house.say("b:1", "c:1")
    assert house.plan.places("app", "c:1") == places
    assert house.record("c:1")[Mark.EJECTED] == 0 == child.cells[places["upstream"]]
    assert set(house.discovered.placed) == {("app", "b:1"), ("app", "c:1")}


@pytest.mark.parametrize("what", ["in flight", "a connection", "a drain", "not told", "back in between", "another"])
def test_while_somebody_may_write_there_cells_are_kept(house: House, what: str) -> None:
    child = house.child()
    house.say("a:1", "b:1")
    house.turn()
    house.told(child)
    places = house.plan.places("app", "a:1")
    gauge = {"in flight": places["flight"] + FLIGHT, "a connection": places["upstream"] + UPSTREAM_OPEN}.get(what)
    if gauge is not None:
        child.cells[gauge] = 1
    if what == "a drain":
        house.child(generation=0)
    if what == "another":
        house.starting = house.generation(2)
        house.say("a:1", about=house.starting)
    house.say("b:1")
    house.turn(10)
    if what == "not told":
        house.say("b:1", "c:1")
        house.turn()
    else:
        house.told(child)
    if what == "back in between":
        house.turn(400)
        house.say("a:1", "b:1")
        house.turn(10)
        house.say("b:1")
        house.told(child)
        house.turn(10)
        house.told(child)
        house.turn(400)
    else:
        house.turn(700)
        house.turn(700)
    assert house.plan.places("app", "a:1") == places
    if gauge is not None:
        child.cells[gauge] = 0
        house.turn(6)
        assert house.plan.places("app", "a:1") == {}


def test_who_finds_no_room_is_left_out_until_there_is_some(house: House, caplog: pytest.LogCaptureFixture) -> None:
    child = house.child()
    while house.plan._next < SEAT_CELLS - 80:
        house.plan.block("listener", f"l{house.plan._next}")
    house.say(*(f"a:{number}" for number in range(1, 7)))
    there = house.found()
    assert 2 <= len(there) < 6 and there == [f"a:{number}" for number in range(1, len(there) + 1)]
    left = 6 - len(there)
    said = f"app: the scoreboard is full: {left} of 6 endpoints are left out"
    assert [record.getMessage() for record in caplog.records] == [said]
    house.turn()
    assert lists(house.told(child)) == [there]
    house.say(*(f"a:{number}" for number in range(2, 7)))
    assert house.found() == there[1:], "a:1 keeps its cells for a while"
    house.turn(10)
    house.told(child)
    house.turn(700)
    assert len(house.found()) == len(there)
    house.turn()
    house.turn()
    messages = house.told(child)
    assert lists(messages)[-1] == house.found() and messages[0]["gone"] == [["app", "a:1"]]
    assert len(caplog.records) == 1


def test_what_a_program_before_us_has_placed_is_given_back_too(house: House) -> None:
    house.plan.admit("app", house.current.config.upstreams["app"], "a:1")
    house.discovered = Discovered(house.board, house.plan, lambda: house.now)
    house.current.findings = Findings()
    house.turn()
    house.turn(700)
    assert house.plan.places("app", "a:1") == {}


# Endpoints that the configuration lists.


def listed(*addresses: str) -> dict[str, Any]:
    return {"endpoints": list(addresses)}


def test_one_that_was_listed_gives_its_cells_back_too(house: House) -> None:
    house.current = house.generation(1, app=listed("a:1", "b:1"))
    house.discovered.begin(None, house.current)
    child = house.child()
    places = house.plan.places("app", "a:1")
    house.record("a:1")[Mark.CONDITION] = Condition.DOWN
    house.turn(700)
    house.turn(700)
    assert house.plan.places("app", "a:1") == places
    new = house.generation(2, app=listed("b:1"))
    house.discovered.begin(house.current, new)
    house.current = new
    house.turn(10)
    house.turn(700)
    assert house.plan.places("app", "a:1") == places, "a worker of the old generation drains"
    house.children.remove(child)
    child.cells[places["flight"] + FLIGHT] = 1
    house.turn(10)
    assert house.plan.places("app", "a:1") == places
    child.cells[places["flight"] + FLIGHT] = 0
    house.turn(10)
    assert house.plan.places("app", "a:1") == {} and house.plan.places("app", "b:1")
    house.discovered.begin(house.current, house.generation(3, app=listed("c:1")))
    assert house.plan.places("app", "c:1") == places
    assert house.record("c:1")[Mark.CONDITION] == Condition.UP


def test_strangers_never_share_a_record(house: House) -> None:
    """Twenty new addresses with each reload, for as long as one is not refused; time makes room."""

    def deploy(number: int) -> Generation:
        addresses = (f"10.0.{number}.test:{one + 1}" for one in range(20))
        return house.generation(number, app=listed(*addresses) | {"outlier": {"failure_ratio": "50%"}})

    def begin(number: int) -> None:
        new = deploy(number)
        house.discovered.check(new.config)
        house.discovered.begin(house.current, new)
        house.current = new
        records = house.plan.blocks["endpoint"]
        assert len({records["app", str(one.address)] for one in new.config.upstreams["app"].endpoints}) == 20

    number = 2
    with pytest.raises(StartError, match="no room for the endpoints of this configuration"):
        while True:
            before = house.plan.dump()
            begin(number)
            number += 1
    assert number > 50
    assert house.plan.dump() == before, "nothing was placed"
    for again in range(number, number + 200):
        house.turn(10)
        house.turn(700)
        begin(again)


def test_what_is_judged_comes_before_what_is_only_counted() -> None:
    """Where there is room for the records there is, whatever else there is too much of."""
    many = {
        "listeners": [{"name": "web", "listen": "127.0.0.1:0"}],
        "upstreams": {"app": listed("a:1", "b:1")},
        "routes": [{"name": f"r{number}", "path": f"/{number}", "upstream": "app"} for number in range(3000)],
    }
    plan, one = Plan(), Config.model_validate(many)
    assert plan.has_room(one)
    plan.cover(one)
    assert plan.places("app", "a:1") and plan.places("app", "b:1") and plan.has_room(one)
