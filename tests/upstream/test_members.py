"""Who stays in the list stays the same object."""

from __future__ import annotations

from gateway.config import upstreams as configured
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.members import Members
from tests.upstream.parts import Parts


def listed(*addresses: str, **more: int) -> list[configured.Endpoint]:
    return [configured.Endpoint.model_validate({"address": address} | more) for address in addresses]


def made() -> Members:
    parts = Parts()

    def make(one: configured.Endpoint) -> Endpoint:
        return parts.endpoint(one.address, one.weight, one.max_requests)

    return Members(make)


def test_who_stays_is_the_same_and_who_comes_back_is_not() -> None:
    members = made()
    [a, b], backups = members.take(listed("a:1", "b:1"))
    assert [a.name, b.name, backups] == ["a:1", "b:1", []]
    [b2, c], _ = members.take(listed("b:1", "c:1"))
    assert b2 is b and c not in (a, b)
    [a2], _ = members.take(listed("a:1"))
    assert a2 is not a, "its pool is closed"
    assert members.take([]) == ([], [])


def test_what_else_is_said_of_an_endpoint_may_change() -> None:
    members = made()
    [a], _ = members.take(listed("a:1"))
    [same], [backup] = members.take(listed("a:1", weight=7, max_requests=2, backup=True))
    assert same is backup is a
    assert (a.weight, a.max_requests) == (7, 2)
    assert members.take(listed("a:1")) == ([a], [])
    assert (a.weight, a.max_requests) == (1, None)


def test_another_path_is_another_endpoint() -> None:
    members = made()
    [a], _ = members.take(listed("http://a:1"))
    [b], _ = members.take(listed("http://a:1/base"))
    assert a is not b


def test_one_that_is_listed_twice_is_there_twice() -> None:
    members = made()
    twice, _ = members.take(listed("a:1", "a:1"))
    assert twice[0] is not twice[1]
    assert members.take(listed("a:1", "a:1"))[0] == twice
