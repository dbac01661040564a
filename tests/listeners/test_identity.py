"""Who the client is: nobody can make the gateway believe what no trusted proxy has said."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.listeners.identity import MODES, Introducer, Introduction, Trust, plain

TRUSTED = ("10.0.0.0/8", "192.0.2.1", "2001:db8:1::/48", "unix")
PEER = "10.0.0.1"


def met(
    *fields: tuple[str, str],
    peer: str = PEER,
    mode: str = "x-forwarded",
    host: str = "a.example",
    trusted: tuple[str, ...] = TRUSTED,
) -> Introduction:
    """How a request with these fields is introduced; repeated ones are joined as wire joins them."""
    special: dict[bytes, bytes] = {b"host": host.encode(), b"connection": b"close"}
    for name, value in fields:
        key = name.encode()
        special[key] = special[key] + b", " + value.encode("latin-1") if key in special else value.encode("latin-1")
    return Introducer(mode, Trust(trusted), "http").meet(peer).introduce(special, host.encode())


def told(introduction: Introduction) -> dict[str, str]:
    """What the endpoint gets, by name. Every line is a field, and none occurs twice."""
    lines = introduction.lines.decode("latin-1").split("\r\n")
    assert lines.pop(0) == ""
    fields = [line.partition(": ")[::2] for line in lines]
    assert all(re.fullmatch("[a-z-]+", name) for name, _ in fields)
    assert len(dict(fields)) == len(fields)
    return dict(fields)


def xff(value: str) -> tuple[str, str]:
    return ("x-forwarded-for", value)


def forwarded(value: str) -> tuple[str, str]:
    return ("forwarded", value)


# Trust.


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("9.255.255.255", False),
        ("11.0.0.0", False),
        ("192.0.2.1", True),
        ("192.0.2.0", False),
        ("192.0.2.2", False),
        ("::ffff:10.1.2.3", True),  # RFC 4291, section 2.5.5.2
        ("::ffff:a01:203", True),
        ("::10.1.2.3", False),  # IPv4-compatible is another address
        ("2001:db8:1::", True),
        ("2001:DB8:1:FFFF::1", True),
        ("2001:db8:1::1%eth0", True),
        ("2001:db8:2::", False),
        ("2001:db8::ffff", False),
        ("unix", True),
        ("", False),
        ("localhost", False),
        ("10.0.0.1:80", False),
        ("010.0.0.1", False),
    ],
)
def test_trust(address: str, expected: bool) -> None:
    assert Trust(TRUSTED).covers(address) is expected


def test_nobody_is_trusted_unless_named() -> None:
    for address in ("127.0.0.1", "::1", "unix", "10.0.0.1"):
        assert not Trust().covers(address)
    assert not Trust(["unix"]).covers("127.0.0.1")
    assert not Trust(["0.0.0.0/0"]).covers("::1")
    assert not Trust(["::/0"]).covers("127.0.0.1") and Trust(["::/0"]).covers("::1")
    assert Trust(["::ffff:10.0.0.0/104"]).covers("10.1.2.3")
    assert Trust(["0.0.0.0/0"]).covers("255.255.255.255")


NETWORKS = st.one_of(
    st.builds(
        lambda n, bits: str(ipaddress.IPv4Network((n, bits), False)), st.integers(0, 2**32 - 1), st.integers(0, 32)
    ),
    st.builds(
        lambda n, bits: str(ipaddress.IPv6Network((n, bits), False)), st.integers(0, 2**128 - 1), st.integers(0, 128)
    ),
)


@given(st.lists(NETWORKS, max_size=8), st.data())
def test_trust_is_what_the_networks_say(networks: list[str], data: Any) -> None:
    edges = [
        address
        for network in map(ipaddress.ip_network, networks)
        for edge in (network.network_address, network.broadcast_address)
        for address in (
            edge,
            edge - 1 if int(edge) else edge,
            edge + 1 if ~int(edge) % (1 << edge.max_prefixlen) else edge,
        )
    ]
    address = data.draw(st.sampled_from(edges) if edges else st.ip_addresses())
    assume(not (address.version == 6 and address.ipv4_mapped))
    trust = Trust(networks)
    expected = any(address in ipaddress.ip_network(network) for network in networks)
    assert trust.covers(str(address)) is trust.covers(str(address)) is expected


def test_thousands_of_ranges_and_the_memory_of_them_are_bounded() -> None:
    trust = Trust(f"{a}.{b}.0.0/17" for a in range(1, 100) for b in range(100))
    for number in range(3 * Trust._MOST_KNOWN):
        address = str(ipaddress.IPv4Address(0x05060000 + number))
        assert trust.covers(address) is (number < 1 << 15)
    assert len(trust._known) <= Trust._MOST_KNOWN


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("unix", "unix"),
    ],
)
def test_an_address_is_written_in_one_way(address: str, expected: str) -> None:
    assert plain(address) == expected
    assert met(peer=address, trusted=()).client == expected


# The walk.


class Walk(NamedTuple):
    field: str
    client: str
    peer: str = PEER


WALKS = {
    "one": Walk("203.0.113.9", "203.0.113.9"),
    "no field at all": Walk("", PEER),
    "the first untrusted from the right": Walk("6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
    "not further though trusted again": Walk("10.0.0.3, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
    "all trusted: the leftmost": Walk("10.0.0.4, 10.0.0.3, 10.0.0.2", "10.0.0.4"),
    "an untrusted peer is the client": Walk("203.0.113.9", "203.0.113.1", "203.0.113.1"),
    "a trusted unix socket": Walk("203.0.113.9", "203.0.113.9", "unix"),
    "a trusted unix socket that says nothing": Walk("", "unix", "unix"),
    "no space": Walk("6.6.6.6,203.0.113.9,10.0.0.2", "203.0.113.9"),
    "much space": Walk("6.6.6.6 \t,\t 203.0.113.9\t ,  10.0.0.2 ", "203.0.113.9"),
    "port": Walk("203.0.113.9:56", "203.0.113.9"),
    "port of a trusted one": Walk("203.0.113.9:56, 10.0.0.2:1", "203.0.113.9"),
    "ipv6": Walk("2001:db8::9", "2001:db8::9"),
    "ipv6 in brackets": Walk("[2001:db8::9]", "2001:db8::9"),
    "ipv6 with port": Walk("[2001:db8::9]:47", "2001:db8::9"),
    "ipv6 in capitals": Walk("2001:DB8:0::0009", "2001:db8::9"),
    "trusted ipv6": Walk("203.0.113.9, 2001:db8:1::7", "203.0.113.9"),
    "ipv4-mapped is ipv4": Walk("203.0.113.9, ::ffff:10.0.0.2", "203.0.113.9"),
    "an ipv4-mapped client": Walk("::ffff:203.0.113.9", "203.0.113.9"),
    "garbage": Walk("nonsense", PEER),
    "garbage behind the client does no harm": Walk("nonsense, 203.0.113.9", "203.0.113.9"),
    "garbage in between": Walk("203.0.113.9, nonsense, 10.0.0.2", "10.0.0.2"),
    "unknown": Walk("unknown", PEER),
    "unknown in between": Walk("203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
    "obfuscated": Walk("203.0.113.9, _hidden", PEER),
    "an empty element": Walk("203.0.113.9, , 10.0.0.2", "10.0.0.2"),
    "an empty end": Walk("203.0.113.9,", PEER),
    "an empty beginning": Walk(", 10.0.0.2", "10.0.0.2"),
    "only commas": Walk(",,,,", PEER),
    "unix is no address": Walk("203.0.113.9, unix", PEER),
    "a host name": Walk("a.example", PEER),
    "octal": Walk("203.0.113.010", PEER),
    "too short": Walk("203.0.113", PEER),
    "a number": Walk("3405803785", PEER),
    "above 255": Walk("203.0.113.256", PEER),
    "a network": Walk("203.0.113.0/24", PEER),
    "port without number": Walk("203.0.113.9:", PEER),
    "port with six digits": Walk("203.0.113.9:123456", PEER),
    "port without brackets": Walk("2001:db8::9:47000:x", PEER),
    "brackets not closed": Walk("[2001:db8::9", PEER),
    "ipv4 in brackets": Walk("[203.0.113.9]", PEER),
    "a zone": Walk("fe80::1%eth0", PEER),
    "quoted": Walk('"203.0.113.9"', PEER),
    "a quote does not hide a comma": Walk('"6.6.6.6, 203.0.113.9', "203.0.113.9"),
    "digits of another script": Walk("２０３.0.113.9".encode().decode("latin-1"), PEER),
    "two addresses without comma": Walk("203.0.113.9 203.0.113.8", PEER),
    "longer than an address": Walk("203.0.113.9" + " " * 300 + "x", PEER),
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS.keys())
def test_the_walk(walk: Walk) -> None:
    fields = [xff(walk.field)] if walk.field else []
    assert met(*fields, peer=walk.peer).client == walk.client
    assert met(*fields, peer=walk.peer, mode="both").client == walk.client
    peer = plain(walk.peer)
    for mode in ("rfc7239", "off"):
        assert met(*fields, peer=walk.peer, mode=mode).client == peer


FORWARDED_WALKS = {
    "one": Walk("for=203.0.113.9", "203.0.113.9"),
    "any case": Walk("FOR=203.0.113.9;Proto=HTTP", "203.0.113.9"),
    "several": Walk("for=6.6.6.6, for=203.0.113.9;by=10.0.0.2, for=10.0.0.2", "203.0.113.9"),
    "all trusted": Walk("for=10.0.0.4, for=10.0.0.3", "10.0.0.4"),
    "no space": Walk("for=6.6.6.6,for=203.0.113.9,for=10.0.0.2", "203.0.113.9"),
    "space around the semicolon": Walk("for=203.0.113.9 ; proto=http;\tby=x", "203.0.113.9"),
    "an empty pair": Walk(";for=203.0.113.9;;", "203.0.113.9"),
    "quoted": Walk('for="203.0.113.9"', "203.0.113.9"),
    "quoted with port": Walk('for="203.0.113.9:47011"', "203.0.113.9"),
    "an obfuscated port": Walk('for="203.0.113.9:_port"', "203.0.113.9"),
    "ipv6": Walk('for="[2001:db8::9]"', "2001:db8::9"),
    "ipv6 with port": Walk('for="[2001:db8::9]:4711";proto=https', "2001:db8::9"),
    "escapes": Walk('for="\\203.0.113.\\9"', "203.0.113.9"),
    "a comma in quotes": Walk('for=203.0.113.9;host="a,b", for=10.0.0.2;by="x,y"', "203.0.113.9"),
    "an element in quotes": Walk('for=203.0.113.9;host="x, for=6.6.6.6"', "203.0.113.9"),
    "an escaped quote in quotes": Walk(r'for=203.0.113.9;host="x\", for=6.6.6.6"', "203.0.113.9"),
    "an escaped backslash before the end": Walk(r'for=203.0.113.9;host="x\\", for=10.0.0.2', "203.0.113.9"),
    "a quote that is never closed swallows nothing": Walk('for="6.6.6.6, for=203.0.113.9', "203.0.113.9"),
    "nor does one that is closed too late": Walk('for="6.6.6.6, for=203.0.113.9, for="', PEER),
    "nor one with an equals sign": Walk('for=", for=203.0.113.9;host="', PEER),
    "unknown": Walk("for=203.0.113.9, for=unknown, for=10.0.0.2", "10.0.0.2"),
    "obfuscated": Walk("for=203.0.113.9, for=_hidden", PEER),
    "no for": Walk("for=203.0.113.9, proto=http", PEER),
    "twice for": Walk("for=203.0.113.9;for=6.6.6.6", PEER),
    "an empty element": Walk("for=203.0.113.9, , for=10.0.0.2", "10.0.0.2"),
    "no value": Walk("for=", PEER),
    "space around the equals sign": Walk("for = 203.0.113.9", PEER),
    "an unquoted port": Walk("for=203.0.113.9:80", PEER),
    "garbage at the end": Walk("for=203.0.113.9, !\x80", PEER),
    "garbage at the beginning": Walk('"!", for=203.0.113.9', "203.0.113.9"),
    "a bare address": Walk("203.0.113.9", PEER),
    "an untrusted peer": Walk("for=6.6.6.6", "203.0.113.1", "203.0.113.1"),
}


@pytest.mark.parametrize("walk", FORWARDED_WALKS.values(), ids=FORWARDED_WALKS.keys())
def test_the_walk_of_forwarded(walk: Walk) -> None:
    for mode in ("rfc7239", "both"):
        assert met(forwarded(walk.field), peer=walk.peer, mode=mode).client == walk.client
    for mode in ("x-forwarded", "off"):
        assert met(forwarded(walk.field), peer=walk.peer, mode=mode).client == walk.peer


def test_in_both_forwarded_is_believed_only_without_the_other() -> None:
    assert met(forwarded("for=203.0.113.9"), xff("203.0.113.8"), mode="both").client == "203.0.113.8"
    assert met(forwarded("for=203.0.113.9"), xff("garbage"), mode="both").client == PEER


def test_repeated_fields_are_one_list() -> None:
    assert met(xff("6.6.6.6"), xff("203.0.113.9, 10.0.0.2")).client == "203.0.113.9"


ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["10.0.0.2", "10.9.9.9", "192.0.2.1", "2001:db8:1::5", "203.0.113.9", "::ffff:10.0.0.7"]),
)
GARBAGE = st.one_of(
    st.sampled_from(["", "unknown", "_x", "10.0.0", '"', "[", "for=", 'for="', "\\"]),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=12),
)


def _x_list(elements: list[str]) -> str:
    return ", ".join(elements)


def _element(address: str) -> str:
    return f'for="[{address}]"' if ":" in address else f"for={address}"


@given(st.lists(st.one_of(ADDRESSES, GARBAGE), max_size=8), st.sampled_from(MODES), st.booleans())
def test_the_client_is_the_peer_or_was_written_down(elements: list[str], mode: str, trusted: bool) -> None:
    value = _x_list(elements)
    peer = PEER if trusted else "203.0.113.1"
    written = {peer}
    for text in re.split(r'[,;="\s]', value.replace("\\", "")):
        for candidate in (text, text.partition(":")[0], text.partition("]")[0].removeprefix("[")):
            try:
                address = ipaddress.ip_address(candidate)
            except ValueError:
                continue
            written.add(str(getattr(address, "ipv4_mapped", None) or address))
    for field in (xff(value), forwarded(value), forwarded(", ".join(map(_element, elements)))):
        introduction = met(field, peer=peer, mode=mode)
        assert introduction.client in written
        told(introduction) if introduction.lines else None
        if not trusted:
            assert introduction == met(peer=peer, mode=mode)


@given(st.lists(st.one_of(ADDRESSES, GARBAGE), max_size=6), ADDRESSES, st.lists(ADDRESSES, max_size=4))
@example(["10.0.0.9", 'for="'], "203.0.113.9", ["10.0.0.2"])
@example(['for="10.0.0.9'], "203.0.113.9", [])
@example(['for="x";host="'], "203.0.113.9", ["10.0.0.2"])
def test_what_a_client_sends_never_changes_who_it_is(before: list[str], client: str, hops: list[str]) -> None:
    trust = Trust(TRUSTED)
    assume(not trust.covers(client))
    hops = [hop for hop in hops if trust.covers(hop)]
    expected = plain(client)
    chain = [client, *hops]
    assert met(xff(_x_list([*before, *chain]))).client == expected
    elements = [_element(plain(address)) for address in chain]
    for prefix in (before, [_element(text) for text in before]):
        introduction = met(forwarded(", ".join([*prefix, *elements])), mode="rfc7239")
        assert introduction.client == expected
        # What goes on is a list that everybody reads alike, from either side.
        assert told(introduction)["forwarded"].endswith(", ".join(elements) + f", for={PEER};proto=http;host=a.example")


@pytest.mark.parametrize(
    "value",
    [
        "," * 32000,
        "10.0.0.2," * 4000,
        'for="' * 6000,
        "for=10.0.0.2," * 2500,
        '",' * 16000,
        'for=",' * 6000,
        "a" * 32000,
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_hostile_values_are_not_worth_it(value: str, mode: str) -> None:
    assert met(xff(value), forwarded(value), ("x-forwarded-proto", value), mode=mode).client in (PEER, "10.0.0.2")


def test_a_chain_has_an_end() -> None:
    assert met(xff("203.0.113.9, " + "10.0.0.2, " * 62 + "10.0.0.3")).client == "203.0.113.9"
    assert met(xff("203.0.113.9, " + "10.0.0.2, " * 63 + "10.0.0.3")).client == "10.0.0.2"


# What the endpoint is told.


SPOOFED = (
    xff("6.6.6.6"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-port", "443"),
    ("x-forwarded-prefix", "/evil"),
    ("x-forwarded-by", "6.6.6.6"),
    ("x-original-url", "/admin"),
    ("x-original-host", "evil.example"),
    ("x-real-ip", "6.6.6.6"),
    ("true-client-ip", "6.6.6.6"),
    ("cf-connecting-ip", "6.6.6.6"),
    forwarded("for=6.6.6.6;proto=https"),
)
OURS = {"x-forwarded-for": "203.0.113.1", "x-forwarded-proto": "http", "x-forwarded-host": "a.example"}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("x-forwarded", OURS),
        ("rfc7239", {"forwarded": "for=203.0.113.1;proto=http;host=a.example"}),
        ("both", {**OURS, "forwarded": "for=203.0.113.1;proto=http;host=a.example"}),
    ],
)
def test_an_untrusted_peer_says_nothing(mode: str, expected: dict[str, str]) -> None:
    for fields in ((), SPOOFED):
        introduction = met(*fields, peer="203.0.113.1", mode=mode)
        assert (introduction.client, introduction.scheme) == ("203.0.113.1", "http")
        assert told(introduction) == expected


def test_in_off_nothing_is_written_and_spoofing_still_removed() -> None:
    assert met(*SPOOFED, peer="203.0.113.1", mode="off") == ("203.0.113.1", "http", b"")
    assert met(mode="off") == (PEER, "http", b"")
    introduction = met(*SPOOFED, mode="off")
    assert (introduction.client, introduction.scheme) == (PEER, "http")
    assert told(introduction) == dict(SPOOFED)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_trusted_peer_says_besides_is_passed_on(mode: str) -> None:
    besides = {
        name: value for name, value in SPOOFED if name[:12] != "x-forwarded-" or name[12:] in ("port", "prefix", "by")
    }
    del besides["forwarded"]
    got = told(met(*SPOOFED, ("x_real_ip", "6.6.6.6"), ("x-forwarded-for_x", "6.6.6.6"), mode=mode))
    assert besides.items() <= got.items()
    assert "x_real_ip" not in got and "x-forwarded-for_x" not in got  # what CGI would take for another field


TOLD: list[tuple[str, str, tuple[tuple[str, str], ...], dict[str, str], str]] = [
    # mode, peer, fields, what the endpoint gets, scheme
    (
        "x-forwarded",
        PEER,
        (),
        {"x-forwarded-for": PEER, "x-forwarded-proto": "http", "x-forwarded-host": "a.example"},
        "http",
    ),
    (
        "x-forwarded",
        PEER,
        (xff("6.6.6.6, 203.0.113.9"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "shop.example:8443")),
        {
            "x-forwarded-for": f"6.6.6.6, 203.0.113.9, {PEER}",
            "x-forwarded-proto": "https",
            "x-forwarded-host": "shop.example:8443",
        },
        "https",
    ),
    (
        "x-forwarded",
        PEER,
        (xff(""), ("x-forwarded-proto", "gopher"), ("x-forwarded-host", "not/a/host")),
        {"x-forwarded-for": PEER, "x-forwarded-proto": "http", "x-forwarded-host": "a.example"},
        "http",
    ),
    (
        "x-forwarded",
        PEER,
        (xff("garbage"), ("x-forwarded-proto", "WSS"), ("x-forwarded-host", "[2001:db8::1]:80")),
        {"x-forwarded-for": f"garbage, {PEER}", "x-forwarded-proto": "wss", "x-forwarded-host": "[2001:db8::1]:80"},
        "https",
    ),
    # Lists of -Proto and -Host are walked as far as that of the addresses, never further.
    (
        "x-forwarded",
        PEER,
        (xff("203.0.113.9, 10.0.0.2"), ("x-forwarded-proto", "https,http"), ("x-forwarded-host", "a, b")),
        {"x-forwarded-for": f"203.0.113.9, 10.0.0.2, {PEER}", "x-forwarded-proto": "https", "x-forwarded-host": "a"},
        "https",
    ),
    (
        "x-forwarded",
        PEER,
        (xff("6.6.6.6, 203.0.113.9"), ("x-forwarded-proto", "https, http"), ("x-forwarded-host", "evil, b")),
        {"x-forwarded-for": f"6.6.6.6, 203.0.113.9, {PEER}", "x-forwarded-proto": "http", "x-forwarded-host": "b"},
        "http",
    ),
    # The dialect that is not read may be any client's own and goes no further.
    (
        "x-forwarded",
        PEER,
        (xff("203.0.113.9"), forwarded("for=6.6.6.6")),
        {"x-forwarded-for": f"203.0.113.9, {PEER}", "x-forwarded-proto": "http", "x-forwarded-host": "a.example"},
        "http",
    ),
    (
        "rfc7239",
        PEER,
        (xff("6.6.6.6"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil.example")),
        {"forwarded": f"for={PEER};proto=http;host=a.example"},
        "http",
    ),
    (
        "rfc7239",
        PEER,
        (forwarded('for="[2001:db8::9]:1";proto=https;host="b.example:1"'),),
        {"forwarded": f'for="[2001:db8::9]:1";proto=https;host="b.example:1", for={PEER};proto=http;host=a.example'},
        "https",
    ),
    ("rfc7239", "2001:db8:1::1", (), {"forwarded": 'for="[2001:db8:1::1]";proto=http;host=a.example'}, "http"),
    ("rfc7239", "unix", (), {"forwarded": "for=unknown;proto=http;host=a.example"}, "http"),
    (
        "rfc7239",
        PEER,
        (forwarded('for="6.6.6.6, for=203.0.113.9, for=10.0.0.2'),),
        {"forwarded": f"for=203.0.113.9, for=10.0.0.2, for={PEER};proto=http;host=a.example"},
        "http",
    ),
    # A unix socket's peer has no address to add.
    ("x-forwarded", "unix", (), {"x-forwarded-proto": "http", "x-forwarded-host": "a.example"}, "http"),
    (
        "x-forwarded",
        "unix",
        (xff("203.0.113.9"),),
        {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "http", "x-forwarded-host": "a.example"},
        "http",
    ),
    # Both tell one story.
    (
        "both",
        PEER,
        (xff("203.0.113.9"),),
        {
            "x-forwarded-for": f"203.0.113.9, {PEER}",
            "x-forwarded-proto": "http",
            "x-forwarded-host": "a.example",
            "forwarded": f"for=203.0.113.9, for={PEER};proto=http;host=a.example",
        },
        "http",
    ),
    (
        "both",
        PEER,
        (forwarded("for=203.0.113.9;proto=https;host=b.example"),),
        {
            "x-forwarded-for": f"203.0.113.9, {PEER}",
            "x-forwarded-proto": "https",
            "x-forwarded-host": "b.example",
            "forwarded": f"for=203.0.113.9;proto=https;host=b.example, for={PEER};proto=http;host=a.example",
        },
        "https",
    ),
    (
        "both",
        PEER,
        (xff("203.0.113.9"), forwarded("for=203.0.113.9;by=x")),
        {
            "x-forwarded-for": f"203.0.113.9, {PEER}",
            "x-forwarded-proto": "http",
            "x-forwarded-host": "a.example",
            "forwarded": f"for=203.0.113.9;by=x, for={PEER};proto=http;host=a.example",
        },
        "http",
    ),
    (
        "both",
        PEER,
        (xff("203.0.113.9"), ("x-forwarded-proto", "https"), forwarded("for=6.6.6.6;proto=http")),
        {
            "x-forwarded-for": f"203.0.113.9, {PEER}",
            "x-forwarded-proto": "https",
            "x-forwarded-host": "a.example",
            "forwarded": f"for=203.0.113.9;proto=https, for={PEER};proto=http;host=a.example",
        },
        "https",
    ),
]


@pytest.mark.parametrize(("mode", "peer", "fields", "expected", "scheme"), TOLD)
def test_what_the_endpoint_is_told(
    mode: str, peer: str, fields: tuple[tuple[str, str], ...], expected: dict[str, str], scheme: str
) -> None:
    introduction = met(*fields, peer=peer, mode=mode)
    assert told(introduction) == expected
    assert introduction.scheme == scheme


def test_the_order_of_the_lines_is_ours_then_theirs() -> None:
    assert met(("x-real-ip", "1.2.3.4"), xff("203.0.113.9")).lines == (
        b"\r\nx-forwarded-for: 203.0.113.9, 10.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: a.example"
        b"\r\nx-real-ip: 1.2.3.4"
    )


def test_without_a_host_none_is_told() -> None:
    assert told(met(host="")) == {"x-forwarded-for": PEER, "x-forwarded-proto": "http"}
    assert told(met(host="", mode="rfc7239")) == {"forwarded": f"for={PEER};proto=http"}


@pytest.mark.parametrize(
    ("host", "quoted"),
    [("a.example", "a.example"), ("a.example:80", '"a.example:80"'), ("[::1]", '"[::1]"'), ("a,b;c", '"a,b;c"')],
)
def test_a_host_is_quoted_where_it_is_no_token(host: str, quoted: str) -> None:
    assert told(met(host=host, mode="rfc7239")) == {"forwarded": f"for={PEER};proto=http;host={quoted}"}


def test_a_connection_remembers_only_what_is_the_same() -> None:
    peer = Introducer("x-forwarded", Trust(TRUSTED), "https").meet("203.0.113.1")
    first = peer.introduce({b"x-real-ip": b"6.6.6.6"}, b"a.example")
    assert peer.introduce({}, b"a.example") is first
    assert peer.introduce({}, b"b.example").lines.endswith(b"x-forwarded-host: b.example")
    assert peer.introduce({}, b"").lines == b"\r\nx-forwarded-for: 203.0.113.1\r\nx-forwarded-proto: https"
    proxy = Introducer("x-forwarded", Trust(TRUSTED), "https").meet(PEER)
    assert [proxy.introduce({b"x-forwarded-for": one}, b"a").client for one in (b"1.1.1.1", b"2.2.2.2")] == [
        "1.1.1.1",
        "2.2.2.2",
    ]
    assert proxy.introduce({}, b"a").client == PEER
    fields = {b"x-forwarded-for": b"1.1.1.1"}
    first = proxy.introduce(fields, b"a")
    assert proxy.introduce(fields, b"a") is first
    assert proxy.introduce(fields, b"b").lines.endswith(b"x-forwarded-host: b")
