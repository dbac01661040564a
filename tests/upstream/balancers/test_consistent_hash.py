"""The ring: nginx's mapping, who moves when somebody goes, and the bound."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from math import ceil, inf
from random import Random
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.values import parse_origin
from gateway.upstream.balancers.consistent_hash import ConsistentHash, base
from gateway.upstream.endpoint import Endpoint
from tests.upstream.balancers import Asked, endpoints, everybody, first, keys
from tests.upstream.parts import blank

# What nginx 1.22.1 (Debian 12) answered on 2026-11-21, asked by hand with `hash $arg_k consistent` for key-0 to key-999
# over these servers, a to e: the first 200, and the CRC32 of all thousand letters. Once with all, once with d down.
SERVERS = {
    "127.0.0.1:19001": 1,
    "127.0.0.1:19002": 2,
    "127.0.0.1:19003": 1,
    "127.0.0.1:19004": 5,
    "unix:/tmp/ketama/app.sock": 1,
}
BY_NGINX = (
    "bdcddbeaeaddcdcbcbdedadcadadddcedabcaedddadaaddabbadaedcddbbadddddccbbcbdaddededdddbdbddbdadabdcdbdd"
    "eddebadbedbcddbdbbbbdbbddcbadaedadcdbdbdddbdedddebddadbbdcaddbbddaccdcdadddadaddceaddbaeddaebddcdbda",
    0xB2BA9AC4,
)
BY_NGINX_WITHOUT_D = (
    "bcceebeaeacccbcbcbeeeaccacabcbcecabcaebcbacaabbabbaeaeeceebbaabbbbccbbcbcabaececcbbbbbaabaacabccabbc"
    "ebeebabbecbcbababbbbcbbcacbaaaeaabcabbbbbabcebbbebecaabbecacabbcbaccecbabeeaeaceceababaeabaebeeccbba",
    0x73C5E906,
)


def balanced(*weights: int, bound: float = 1.25) -> tuple[ConsistentHash, list[Asked]]:
    members = endpoints(*weights)
    balancer = ConsistentHash(bound=bound)
    balancer.rebuild(members)
    return balancer, members


def mapping(balancer: ConsistentHash, count: int = 2000) -> dict[bytes, Endpoint]:
    return {key: next(balancer.order(key)) for key in islice(keys(), count)}


@pytest.mark.parametrize(("without", "expected"), [("", BY_NGINX), ("d", BY_NGINX_WITHOUT_D)], ids=["all", "without d"])
def test_the_mapping_is_that_of_nginx(without: str, expected: tuple[str, int]) -> None:
    members = [Endpoint("app", parse_origin(name), "preserve", weight, **blank()) for name, weight in SERVERS.items()]
    letters = dict(zip(members, "abcde", strict=True))
    balancer = ConsistentHash()
    balancer.rebuild([endpoint for endpoint in members if letters[endpoint] != without], members)
    got = "".join(letters[endpoint] for endpoint in mapping(balancer, 1000).values())
    assert (got[:200], crc32(got.encode())) == expected


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        ("10.0.0.1:80", b"10.0.0.1\x0080"),
        ("[::1]:80", b"[::1]\x0080"),
        ("app.internal:8080", b"app.internal\x008080"),
        ("unix:/run/app.sock", b"/run/app.sock\x00"),
        ("http://10.0.0.1:80/base", b"http://10.0.0.1:80/base\x00"),
    ],
)
def test_what_a_name_is_hashed_as(name: str, hashed: bytes) -> None:
    assert base(name) == crc32(hashed)


def test_without_a_key_it_is_round_robin() -> None:
    balancer, (a, b, c) = balanced(5, 1, 1)
    assert [first(balancer) for _ in range(7)] == [a, a, b, a, c, a, a]


def test_keys_spread_by_weight() -> None:
    """As evenly as 160 points for each unit of weight do: within some 10 %."""
    balancer, members = balanced(1, 2, 3, 4)
    picked = Counter(mapping(balancer, 20_000).values())
    for endpoint in members:
        assert picked[endpoint] / 20_000 == pytest.approx(endpoint.weight / 10, rel=0.15)


@pytest.mark.parametrize("weights", [(65535, 65535, 65535), (65535, 1), (1,) * 1000, (1, 100) * 200], ids=len)
def test_large_weights_and_groups(weights: tuple[int, ...]) -> None:
    balancer, members = balanced(*weights)
    picked = Counter(mapping(balancer, 20_000).values())
    for weight in set(weights):
        share = sum(picked[endpoint] for endpoint in members if endpoint.weight == weight) / 20_000
        assert share == pytest.approx(weight * weights.count(weight) / sum(weights), abs=0.02)


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=12),
    st.data(),
)
@settings(max_examples=50)
def test_only_keys_of_who_is_gone_move_and_they_come_back(weights: list[int], data: st.DataObject) -> None:
    balancer, members = balanced(*weights)
    before = mapping(balancer, 300)
    gone = set(data.draw(st.lists(st.sampled_from(members), min_size=1, max_size=len(members) - 1, unique=True)))
    orders = {key: list(balancer.order(key)) for key in before}
    balancer.rebuild([endpoint for endpoint in members if endpoint not in gone], members)
    for key, endpoint in mapping(balancer, 300).items():
        # To the next on the ring that is ready, and nowhere else.
        assert endpoint is next(one for one in orders[key] if one not in gone)
        assert endpoint is before[key] or before[key] in gone
    balancer.rebuild(members, members)
    assert mapping(balancer, 300) == before


def test_whoever_is_gone_large_weights_are_scaled_alike() -> None:
    balancer, members = balanced(3000, 300, 300)
    before = mapping(balancer)
    balancer.rebuild(members[1:], members)
    for key, endpoint in mapping(balancer).items():
        assert endpoint is before[key] or before[key] is members[0]


def test_the_keys_of_who_is_gone_go_to_many() -> None:
    balancer, members = balanced(*[1] * 10)
    before = mapping(balancer)
    balancer.rebuild(members[1:], members)
    heirs = Counter(endpoint for key, endpoint in mapping(balancer).items() if before[key] is members[0])
    assert len(heirs) >= 8


def test_a_new_member_takes_its_keys_and_no_others() -> None:
    balancer, members = balanced(*[1] * 9)
    before = mapping(balancer)
    [*_, new] = endpoints(*[1] * 10)
    balancer.rebuild([*members, new])
    moved = [key for key, endpoint in mapping(balancer).items() if endpoint is not before[key]]
    assert all(first(balancer, key) is new for key in moved)
    assert len(moved) / len(before) == pytest.approx(0.1, abs=0.03)


@given(st.lists(st.lists(st.integers(0, 11), min_size=1, unique=True), min_size=1, max_size=5), st.data())
@settings(max_examples=30)
def test_it_depends_only_on_who_is_a_member(groups: list[list[int]], data: st.DataObject) -> None:
    """A ring that has seen changes maps as one that was built now: in another worker, after a reload, in any order."""
    known = endpoints(*[1, 2, 3, 1] * 3)
    old = ConsistentHash()
    for group in groups:
        members = [known[number] for number in group]
        old.rebuild(members)
        known[group[0]].weight = data.draw(st.integers(1, 3))
        old.rebuild(members)
    new = ConsistentHash(0.5)
    new.rebuild(sorted(members, key=lambda one: one.name))
    assert mapping(new, 200) == mapping(old, 200)


def test_who_starts_slowly_takes_its_keys_back_by_and_by() -> None:
    balancer, members = balanced(*[1] * 4)
    starting = members[0]
    whole = mapping(balancer)
    theirs = {key for key, endpoint in whole.items() if endpoint is starting}
    had: set[bytes] = set()
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        starting.share = share
        now = mapping(balancer)
        has = {key for key, endpoint in now.items() if endpoint is starting}
        assert had <= has <= theirs  # it keeps what it took
        assert all(now[key] is whole[key] for key in whole.keys() - theirs)  # nobody else is touched
        assert len(has) / len(whole) == pytest.approx(share / (3 + share), abs=0.05)
        had = has
    assert had == theirs


@pytest.mark.parametrize("bound", [1.05, 1.25, 2.0])
@pytest.mark.parametrize("weights", [(1,) * 10, (1, 2, 3), (5, 1)], ids=str)
def test_nobody_gets_more_than_the_bound(weights: tuple[int, ...], bound: float) -> None:
    """Keys of which a few are asked for most of the time, and requests that end at some time."""
    balancer, _ = balanced(*weights, bound=bound)
    chance = Random(1)
    in_flight: list[Asked] = []
    for _ in range(5000):
        picked = first(balancer, b"%d" % int(chance.expovariate(0.5)))
        most = ceil(bound * (len(in_flight) + 1) * picked.weight / sum(weights))
        picked.requests += 1
        assert picked.requests <= most
        in_flight.append(picked)
        while len(in_flight) > 50 or (in_flight and chance.random() < 0.3):
            in_flight.pop(chance.randrange(len(in_flight))).requests -= 1


def test_who_is_full_is_passed_over_for_the_next_and_comes_last() -> None:
    balancer, members = balanced(*[1] * 5)
    order = everybody(balancer, b"key")
    for endpoint in members:
        endpoint.requests = 4
    order[0].requests = order[2].requests = 9  # of 30: 1.25 * 31 / 5 is 7.75
    assert list(balancer.order(b"key")) == [order[1], order[3], order[4], order[0], order[2]]
    order[0].requests = 7
    assert first(balancer, b"key") is order[0]


def test_the_bound_is_of_those_who_are_ready() -> None:
    balancer, members = balanced(1, 1, 1, 1)
    order = everybody(balancer, b"key")
    order[3].requests = 1000  # of which some may still be in flight
    balancer.rebuild(order[:3], members)
    for endpoint in order[:3]:
        endpoint.requests = 10
    order[0].requests = 20
    assert first(balancer, b"key") is order[1]


def test_without_a_bound_a_key_stays_where_it_is() -> None:
    balancer, _ = balanced(1, 1, 1, bound=inf)
    endpoint = first(balancer, b"key")
    endpoint.requests = 10_000
    assert first(balancer, b"key") is endpoint


def test_in_a_large_group_the_sum_is_not_made_at_each_pick() -> None:
    balancer, members = balanced(*[1] * 160)
    for endpoint in members:
        endpoint.requests = 5
    for key in islice(keys(), 100):
        first(balancer, key)
    assert sum(endpoint.asked for endpoint in members) < 100 * 30


def test_two_of_one_name_are_both_offered() -> None:
    one, two = endpoints(1)[0], endpoints(1)[0]
    balancer = ConsistentHash()
    balancer.rebuild([one, two])
    assert Counter(balancer.order(b"key")) == Counter([one, two])
