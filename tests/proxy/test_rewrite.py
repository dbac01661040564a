"""Targets that are changed on their way to an endpoint, and what comes back."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import Rewrite as RewriteConfig
from gateway.config.values import TARGET_QUERY
from gateway.proxy.paths import ambiguity, canonical
from gateway.proxy.rewrite import Mapping, Rewrite, join, mapped_back


def rewrite(path: str = "", **keys: Any) -> Rewrite:
    return Rewrite(RewriteConfig.model_validate(keys), path)


# Joining.


@pytest.mark.parametrize(
    ("base", "target", "joined"),
    [
        (b"", b"/dir", b"/dir"),
        (b"/base", b"/dir", b"/base/dir"),
        (b"/base/", b"/dir", b"/base/dir"),
        (b"/base", b"/", b"/base/"),
        (b"/base/", b"/", b"/base/"),
        (b"/base//", b"/dir", b"/base//dir"),
        (b"/base", b"//dir", b"/base//dir"),
        (b"/base", b"/a%2Fb", b"/base/a%2Fb"),
        (b"/base%2Fx", b"/a", b"/base%2Fx/a"),
        (b"/base", b"/a?b=/c&d=%zz;e", b"/base/a?b=/c&d=%zz;e"),
        (b"/base", b"/?", b"/base/?"),
        (b"/base", b"*", b"*"),
    ],
)
def test_join(base: bytes, target: bytes, joined: bytes) -> None:
    assert join(base, target) == joined


def joined_as_go_does(base: bytes, path: bytes) -> bytes:
    """singleJoiningSlash of Go's net/http/httputil/reverseproxy.go, on the escaped forms as joinURLPath calls it."""
    match (base.endswith(b"/"), path.startswith(b"/")):
        case (True, True):
            return base + path[1:]
        case (False, False):
            return base + b"/" + path
    return base + path


# What the wire lets through as a request target.
WIRE = b"".join(bytes((code,)) for code in (*range(0x21, 0x7F), *range(0x80, 0x100)))
ANY_PATH = st.lists(st.sampled_from([bytes((code,)) for code in WIRE if code != ord("?")]), max_size=12).map(
    lambda tail: b"/" + b"".join(tail)
)
PIECES = st.sampled_from(
    [
        b"/",
        b"//",
        b"shop",
        b"sh%6Fp",
        b"a",
        b"a.b",
        b".",
        b"..",
        b"%2E",
        b"%2F",
        b"%41",
        b"%",
        b"%zz",
        b"\xc3\xa9",
        b"&",
        b"#",
    ]
)
TELLING_PATH = st.lists(PIECES, max_size=10).map(lambda pieces: b"/" + b"".join(pieces))
SOME_PATH = ANY_PATH | TELLING_PATH
QUERY = st.sampled_from([b"", b"?", b"?a=b", b"?/x?y=%zz"])
BASE = st.sampled_from([b"/base", b"/base/", b"/b/c%2Fd", b"/b/c//"])


@given(BASE, SOME_PATH, QUERY)
def test_join_is_gos(base: bytes, path: bytes, query: bytes) -> None:
    assert join(base, path + query) == joined_as_go_does(base, path) + query


# Targets.


@pytest.mark.parametrize(
    ("target", "stripped"),
    [
        (b"/shop", b"/"),
        (b"/shop/", b"/"),
        (b"/shop/x", b"/x"),
        (b"/shop?a=b", b"/?a=b"),
        (b"/shop/x?a=/shop/y", b"/x?a=/shop/y"),
        (b"/shop/a%2Fb%20c", b"/a%2Fb%20c"),
        (b"/shop/shop/x", b"/shop/x"),
        (b"/sh%6Fp/x", b"/x"),
        (b"/%73hop", b"/"),
        (b"/shop/caf%C3%A9\xff", b"/caf%C3%A9\xff"),
        (b"*", b"*"),
        # With path_policy = "pass".
        (b"/shop//x", b"//x"),
        (b"/shop/./x", b"/./x"),
        (b"//shop/x", b"/x"),
        (b"/./shop/x", b"/x"),
        (b"/a/../shop/x", b"/x"),
        (b"/shop/../shop/x", b"/x"),
        (b"/shop/a/../../shop/%2e%2e/shop/x", b"/x"),
        (b"/shop/a/../x", b"/x"),
        (b"/shop/a/b/../x", b"/a/b/../x"),
        (b"/shop/;x", b"/;x"),
    ],
)
def test_strip_prefix(target: bytes, stripped: bytes) -> None:
    for prefix in ("/shop", "/shop/"):
        assert rewrite(prefix, strip_prefix=True).target(target) == stripped


@pytest.mark.parametrize(
    ("prefix", "target", "stripped"),
    [
        ("/a/b", b"/a/b/c", b"/c"),
        ("/a/b", b"/%61/%62/c", b"/c"),
        ("/café", b"/caf%C3%A9/x", b"/x"),
        ("/café", b"/caf%c3%a9/x", b"/x"),
        ("/café", b"/caf\xc3\xa9/x", b"/x"),
        ("/a b", b"/a%20b/x", b"/x"),
        ("/a%2Fb", b"/a%2fb/x", b"/x"),
        ("/", b"/x", b"/x"),
        ("/", b"/", b"/"),
    ],
)
def test_strip_prefixes_of_other_kinds(prefix: str, target: bytes, stripped: bytes) -> None:
    assert rewrite(prefix, strip_prefix=True).target(target) == stripped


def test_what_the_endpoint_is_told() -> None:
    assert rewrite("/shop/", strip_prefix=True).prefix == b"/shop"
    assert rewrite("/caf\xe9 1", strip_prefix=True).prefix == b"/caf%C3%A9%201"
    assert rewrite("/", strip_prefix=True).prefix == b""
    assert rewrite("/shop", add_prefix="/v1").prefix == b""


@pytest.mark.parametrize(
    ("keys", "target", "changed"),
    [
        ({"add_prefix": "/v1"}, b"/x?a=b", b"/v1/x?a=b"),
        ({"add_prefix": "/v1/"}, b"/x", b"/v1/x"),
        ({"add_prefix": "/"}, b"/x", b"/x"),
        ({"add_prefix": "/v1"}, b"/", b"/v1/"),
        ({"add_prefix": "/v1"}, b"*", b"*"),
        ({"add_prefix": "/v1", "strip_prefix": True}, b"/shop/x", b"/v1/x"),
        ({"add_prefix": "/v1", "strip_prefix": True}, b"/shop", b"/v1/"),
        ({"replace_path": "/index"}, b"/shop/x?a=b", b"/index?a=b"),
        ({"replace_path": "/index"}, b"/shop/x", b"/index"),
        ({"replace_path": "/index"}, b"/shop?", b"/index?"),
        ({"regex": "/old/(.*)", "to": r"/new/\1"}, b"/old/x?a=b", b"/new/x?a=b"),
        ({"regex": "/old/(.*)", "to": r"/new/\1"}, b"/old/a%2Fb%20c", b"/new/a%2Fb%20c"),
        ({"regex": "/old/(.*)", "to": r"/new/\1"}, b"/elsewhere/old/x", b"/elsewhere/old/x"),
        ({"regex": "/old", "to": "/new"}, b"/old/x?a", b"/new/x?a"),
        ({"regex": r"/(?P<a>\w+)/(?P<b>\w+)", "to": r"/\g<b>/\g<a>"}, b"/x/y/z", b"/y/x/z"),
        ({"regex": "/(a)?(b)?", "to": r"/\1-\2"}, b"/b", b"/-b"),
        ({"regex": "/item/(\\d+)", "to": r"/item?id=\1"}, b"/item/7", b"/item?id=7"),
        ({"regex": "/item/(\\d+)", "to": r"/item?id=\1"}, b"/item/7/x?a=b", b"/item/x?id=7&a=b"),
        ({"regex": "/q/(.*)", "to": r"/q?q=\1"}, b"/q/a&b=c+d%26", b"/q?q=a%26b%3Dc%2Bd%26"),
        ({"regex": "/(.*)", "to": r"/\1"}, b"/a%zz#b\xc3\xa9\xff{", b"/a%25zz%23b%C3%A9%FF%7B"),
        ({"regex": "/(.)", "to": r"/\1x"}, b"/%41", b"/%25x41"),
        ({"regex": "/(.*)", "to": r"/\1"}, b"*", b"*"),
        ({"regex": "/é(.*)", "to": r"/e\1"}, b"/\xc3\xa9t\xc3\xa9", b"/et%C3%A9"),
    ],
)
def test_targets(keys: dict[str, Any], target: bytes, changed: bytes) -> None:
    assert rewrite("/shop", **keys).target(target) == changed


REWRITES = st.sampled_from(
    [
        rewrite("/shop", strip_prefix=True),
        rewrite("/shop", strip_prefix=True, add_prefix="/v1/a%2Fb"),
        rewrite("/shop", add_prefix="/v1"),
        rewrite("/shop", replace_path="/index"),
        rewrite("/shop", regex="/(.*)/([^/]*)", to=r"/x\2/\1?a=\2"),
        rewrite("/shop", regex="/(.{0,3})", to=r"/\1?q=\1"),
    ]
)


@given(REWRITES, SOME_PATH, QUERY, st.sampled_from([b"", b"/base"]))
def test_a_target_stays_one(change: Rewrite, path: bytes, query: bytes, base: bytes) -> None:
    target = join(base, change.target(path + query))
    assert re.fullmatch(rb"/[\x21-\x7e\x80-\xff]*", target)
    assert target.endswith(query.removeprefix(b"?"))


@given(SOME_PATH, QUERY)
def test_what_a_regex_made_is_legal(path: bytes, query: bytes) -> None:
    target = rewrite(regex="/(.*?)(..)", to=r"/\2/\1?\2=\1").target(path)
    if target != path:
        assert re.fullmatch(TARGET_QUERY, target.decode("ascii"))


@given(TELLING_PATH)
def test_what_is_left_of_a_path_lies_below_the_prefix(tail: bytes) -> None:
    """Whatever detours a path takes: as seen from the prefix, the endpoint gets what the route was found by."""
    path = b"/shop" + tail
    found = canonical(path)
    if found == "/shop" or found.startswith("/shop/"):
        left = rewrite("/shop", strip_prefix=True).target(path)
        assert canonical(left) == (found.removeprefix("/shop") or "/")


# The way back.


def block(*lines: str) -> bytes:
    return "\r\n".join(lines).encode()


SHOP = rewrite("/shop", strip_prefix=True)
OWN = b"127.0.0.1:9001"


def mapping(change: Rewrite | None = SHOP, base: bytes = b"", host: bytes = b"") -> Mapping:
    found = Mapping.of(change, base, OWN, host)
    assert found is not None
    return found


def back(line: str, used: Mapping, host: bytes = b"example.com") -> str:
    return mapped_back(line.encode(), used, b"https", host).decode()


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("/", "/shop/"),
        ("/x", "/shop/x"),
        ("/x?a=/b#c", "/shop/x?a=/b#c"),
        ("/?a", "/shop/?a"),
        ("/shop/x", "/shop/x"),  # an endpoint that heeds X-Forwarded-Prefix
        ("/shop", "/shop"),
        ("/shopping", "/shop/shopping"),
        ("x", "x"),
        ("../x", "../x"),
        ("?a=b", "?a=b"),
        ("", ""),
        ("//example.org/x", "//example.org/x"),
        ("https://example.org/x", "https://example.org/x"),
        ("http://127.0.0.1:9001/x", "https://example.com/shop/x"),
        ("HTTP://127.0.0.1:9001/x", "https://example.com/shop/x"),
        ("http://127.0.0.1:9001", "https://example.com/shop/"),
        ("http://127.0.0.1:9001?a=b", "https://example.com/shop/?a=b"),
        ("http://127.0.0.1:9001/shop/x", "https://example.com/shop/x"),
        ("//127.0.0.1:9001/x", "//example.com/shop/x"),
        ("http://127.0.0.1:9002/x", "http://127.0.0.1:9002/x"),
        ("https://127.0.0.1:9001/x", "https://127.0.0.1:9001/x"),
        ("http://u@127.0.0.1:9001/x", "http://u@127.0.0.1:9001/x"),
        ("http://127.0.0.1:9001\\x", "http://127.0.0.1:9001\\x"),
        ("http://example.com/x", "http://example.com/shop/x"),
        ("http://Example.com:80/x", "http://Example.com:80/shop/x"),
        ("https://example.com:443/x", "https://example.com:443/shop/x"),
        ("https://example.com:80/x", "https://example.com:80/x"),
        ("//example.com/x", "//example.com/shop/x"),
        ("https://example.com/shop/x", "https://example.com/shop/x"),
        ("ftp://example.com/x", "ftp://example.com/x"),
        ("mailto:x@example.com", "mailto:x@example.com"),
        ("/a b", "/a b"),
        ("/\\evil.example", "/\\evil.example"),
        ("/é", "/shop/é"),
    ],
)
def test_locations_behind_a_stripped_prefix(url: str, public: str) -> None:
    for name in ("Location", "content-location"):
        assert back(f"{name}: {url}", mapping()) == f"{name}: {public}"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("/base", "/"),
        ("/base/", "/"),
        ("/base/x", "/x"),
        ("/base?a", "/?a"),
        ("/basement", "/basement"),
        ("/login", "/login"),
        ("http://127.0.0.1:9001/base/x", "https://example.com/x"),
        ("http://127.0.0.1:9001/login", "http://127.0.0.1:9001/login"),
        ("http://127.0.0.1:9001/base", "https://example.com/"),
        # Made of a path by a mapping, these would be URLs of another host.
        ("/base//evil.example", "/base//evil.example"),
        ("/base/\\evil.example", "/base/\\evil.example"),
        ("/base/\t/evil.example", "/base/\t/evil.example"),
        ("http://127.0.0.1:9001/base//x", "https://example.com//x"),
    ],
)
def test_locations_behind_an_endpoint_with_a_path(url: str, public: str) -> None:
    assert back(f"Location: {url}", mapping(None, b"/base")) == f"Location: {public}"


@pytest.mark.parametrize(
    ("used", "url", "public"),
    [
        (mapping(base=b"/base"), "/base/x", "/shop/x"),
        (mapping(base=b"/base"), "/shop/x", "/shop/x"),
        (mapping(base=b"/base/"), "/base", "/shop"),
        (mapping(rewrite("/shop", strip_prefix=True, add_prefix="/v1"), b"/base"), "/base/v1/x", "/shop/x"),
        (mapping(rewrite("/shop", strip_prefix=True, add_prefix="/v1"), b"/base"), "/base/x", "/base/x"),
        (mapping(rewrite("/shop", strip_prefix=True, add_prefix="/shop/v1")), "/shop/v1/x", "/shop/x"),
        (mapping(rewrite("/shop/v1", strip_prefix=True, add_prefix="/shop")), "/shop/x", "/shop/v1/x"),
        (mapping(rewrite("/shop/v1", strip_prefix=True, add_prefix="/shop")), "/shop/v1/x", "/shop/v1/x"),
        (mapping(rewrite("/shop", add_prefix="/v1")), "/v1/shop/x", "/shop/x"),
        (mapping(rewrite("/shop", replace_path="/index"), b"/base"), "/base/x", "/x"),
        (mapping(None, host=b"app.internal"), "http://app.internal/x", "https://example.com/x"),
        (mapping(None, host=b"app.internal"), "http://app.internal:80/x", "https://example.com/x"),
        (mapping(None, host=OWN), "http://127.0.0.1:9001/x", "https://example.com/x"),
        (mapping(None, host=OWN), "/x", "/x"),
    ],
)
def test_locations_elsewhere(used: Mapping, url: str, public: str) -> None:
    assert back(f"Location: {url}", used) == f"Location: {public}"


@pytest.mark.parametrize(
    ("value", "public"),
    [
        ("5; url=/x", "5; url=/shop/x"),
        ("0;URL='/x'", "0;URL='/shop/x'"),
        ('5.5 ; url = "/x" ', '5.5 ; url = "/shop/x" '),
        ("5, /x", "5, /shop/x"),
        ("0; url=http://127.0.0.1:9001/x", "0; url=https://example.com/shop/x"),
        ("5", "5"),
        ("5; url=x", "5; url=x"),
        ("5; url='/x", "5; url='/x"),
        ("5; url='/x'y", "5; url='/x'y"),
        ("x; url=/x", "x; url=/x"),
    ],
)
def test_refresh(value: str, public: str) -> None:
    assert back(f"Refresh: {value}", mapping()) == f"Refresh: {public}"


@pytest.mark.parametrize(
    ("cookie", "public"),
    [
        ("a=b", "a=b"),
        ("a=b; Path=/x", "a=b; Path=/shop/x"),
        ("a=b;path=/x;Secure", "a=b;path=/shop/x;Secure"),
        ("a=b; Path=/", "a=b; Path=/shop"),
        ("a=b; PATH = /x ; HttpOnly", "a=b; PATH = /shop/x ; HttpOnly"),
        ("a=b; Path=/shop", "a=b; Path=/shop"),
        ("a=b; Path", "a=b; Path"),
        ("a=b; Path=", "a=b; Path="),
        ("a=b; Path=x", "a=b; Path=x"),
        ("Path=/x; Secure", "Path=/x; Secure"),
        ("__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure"),
        ("a=b; Domain=127.0.0.1; Secure", "a=b; Secure"),
        ("a=b; Domain=127.0.0.1; Path=/", "a=b; Path=/shop"),
        ("a=b; domain=.127.0.0.1", "a=b"),
        ("a=b; Domain=example.com", "a=b; Domain=example.com"),
        ("a=b; Domain=1.127.0.0.1", "a=b; Domain=1.127.0.0.1"),
        ("", ""),
        (";", ";"),
    ],
)
def test_cookies(cookie: str, public: str) -> None:
    assert back(f"Set-Cookie: {cookie}", mapping()) == f"Set-Cookie: {public}"


@pytest.mark.parametrize(
    ("path", "public"),
    [("/base", "/"), ("/base/", "/"), ("/base/x", "/x"), ("/", "/"), ("/basement", "/basement")],
)
def test_cookies_of_an_endpoint_with_a_path(path: str, public: str) -> None:
    line = "Set-Cookie: a=b; Path={}; Domain=App.Internal"
    used = mapping(None, b"/base", b"app.internal:8080")
    assert back(line.format(path), used) == f"Set-Cookie: a=b; Path={public}"


def test_the_names_of_an_ipv6_endpoint() -> None:
    used = Mapping.of(SHOP, b"", b"[::1]:81", b"")
    assert used is not None and used.authorities == {b"[::1]:81"} and used.hosts == {b"[::1]"}
    used = Mapping.of(SHOP, b"", b"[::1]", b"App:80")
    assert used is not None and used.authorities == used.hosts == {b"[::1]", b"app"}


def test_the_same_place_needs_no_mapping() -> None:
    assert Mapping.of(None, b"", OWN, b"") is None
    assert Mapping.of(rewrite("/shop", replace_path="/index"), b"", OWN, b"") is None
    assert Mapping.of(rewrite("/", strip_prefix=True), b"", OWN, b"") is None
    assert Mapping.of(rewrite("/v1", strip_prefix=True, add_prefix="/v1"), b"", OWN, b"") is None
    assert Mapping.of(None, b"", OWN, OWN) is not None


def test_the_other_lines_stay_as_they_are() -> None:
    lines = [
        "Server: x",
        "LOCATION:/x\t",
        "X-Location: /x",
        "set-cookie: a=b; path=/x",
        "Set-Cookie:c=d;Path=/",
        "Link: </x>",
        "location-x: /x",
        "Refresh:   5; url=/x",
    ]
    mapped = [
        "Server: x",
        "LOCATION:/shop/x\t",
        "X-Location: /x",
        "set-cookie: a=b; path=/shop/x",
        "Set-Cookie:c=d;Path=/shop",
        "Link: </x>",
        "location-x: /x",
        "Refresh:   5; url=/shop/x",
    ]
    assert mapped_back(block(*lines), mapping(), b"http", b"example.com") == block(*mapped)


@pytest.mark.parametrize(
    "lines",
    [(), ("Server: x",), ("Location: x", "Set-Cookie: a=b"), ("X-Location: /x",), ("Location: https://example.org/",)],
)
def test_nothing_to_change_is_the_same_object(lines: tuple[str, ...]) -> None:
    given_block = block(*lines)
    assert mapped_back(given_block, mapping(), b"http", b"example.com") is given_block


def test_without_a_host_of_the_client_an_authority_stays() -> None:
    assert back("Location: http://127.0.0.1:9001/x", mapping(), b"") == "Location: http://127.0.0.1:9001/x"


@given(TELLING_PATH, QUERY, st.sampled_from([b"", b"/base"]), st.sampled_from([None, "/v1"]))
def test_strip_and_map_back_is_the_identity(tail: bytes, query: bytes, base: bytes, added: str | None) -> None:
    change = rewrite("/shop", strip_prefix=True, add_prefix=added)
    target = b"/shop" + tail + query
    if ambiguity(b"/shop" + tail) is not None:
        return
    internal = join(base, change.target(target))
    if not base and not added and (internal + b"/").startswith((b"/shop/", b"/shop?")):
        return  # could as well be the word of an endpoint that heeds X-Forwarded-Prefix
    used = mapping(change, base)
    for before, after in (
        (b"Location: " + internal, b"Location: " + target),
        (b"Location: http://" + OWN + internal, b"Location: https://example.com" + target),
    ):
        assert mapped_back(before, used, b"https", b"example.com") == after


FIELD = st.binary(max_size=30).map(lambda raw: raw.translate(None, b"\r\n\0"))
NAMES = st.sampled_from(
    [b"Location: ", b"location:", b"Refresh: 5; url=", b"Set-Cookie: a=b; Path=", b"set-cookie:", b"X: "]
)
STARTS = st.sampled_from([b"", b"/", b"/base", b"//", b"http://127.0.0.1:9001", b"//example.com/base", b"/\\"])
MAPPINGS = st.sampled_from([mapping(), mapping(base=b"/base"), mapping(None, b"/base"), mapping(None, host=OWN)])


@given(st.lists(st.tuples(NAMES, STARTS, FIELD).map(b"".join), max_size=4), MAPPINGS)
def test_a_block_stays_one(lines: list[bytes], used: Mapping) -> None:
    """As many lines as before, each with its name, and no location that leads to a host it did not lead to."""
    before = b"\r\n".join(lines)
    after = mapped_back(before, used, b"https", b"example.com").split(b"\r\n")
    assert len(after) == len(before.split(b"\r\n"))
    for old, new in zip(before.split(b"\r\n"), after, strict=True):
        assert new.partition(b":")[0] == old.partition(b":")[0]
        assert not set(new) & set(b"\r\n\0")
        if new != old and old.startswith(b"Location: /") and not old.startswith(b"Location: //"):
            assert re.match(rb"Location: /(?![/\\])", new)
