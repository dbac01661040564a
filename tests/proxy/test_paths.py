"""The path that is compared, and the paths that can be read in two ways."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.values import TARGET_QUERY
from gateway.proxy.paths import ambiguity, canonical, escaped


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/a/b", "/a/b"),
        (b"/a%20b", "/a b"),
        (b"/caf%C3%A9", "/café"),
        (b"/caf\xc3\xa9", "/café"),
        (b"/%41", "/A"),
        (b"/a%2Fb", "/a%2Fb"),
        (b"/a%2fb", "/a%2Fb"),
        (b"/a+b", "/a+b"),
        (b"/%zz", "/%zz"),
        (b"/100%", "/100%"),
        (b"/...", "/..."),
        (b"/.hidden", "/.hidden"),
        (b"/a/..b", "/a/..b"),
        (b"/a/b..", "/a/b.."),
        (b"/a;b=c", "/a;b=c"),
        (b"/a\\b", "/a\\b"),
        (b"/a%00b", "/a\0b"),
        (b"*", "*"),
        # Dot segments (RFC 3986, section 5.2.4) and empty ones.
        (b"/.", "/"),
        (b"/..", "/"),
        (b"/../..", "/"),
        (b"/../a", "/a"),
        (b"/a/./b", "/a/b"),
        (b"/a/b/.", "/a/b/"),
        (b"/a/../b", "/b"),
        (b"/a/..", "/"),
        (b"/a/b/..", "/a/"),
        (b"/a/b/../", "/a/"),
        (b"/a/b/c/./../../g", "/a/g"),
        (b"/mid/content=5/../6", "/mid/6"),
        (b"/%2e", "/"),
        (b"/a/%2E%2e/b", "/b"),
        (b"/a/.%2e/b", "/b"),
        (b"/a/..%2Fb", "/a/..%2Fb"),
        (b"//", "/"),
        (b"//a", "/a"),
        (b"/a//b", "/a/b"),
        (b"/a/b//", "/a/b/"),
        (b"/a//../b", "/b"),  # merged first, as nginx does
    ],
)
def test_canonical(raw: bytes, path: str) -> None:
    assert canonical(raw) == path


def test_an_escaped_percent_is_not_taken_for_an_escaped_slash() -> None:
    """ "/a%252Fb" is a segment that ends in the four characters "%2Fb"; "/a%2Fb" has a slash in it."""
    assert canonical(b"/a%252Fb") != canonical(b"/a%2Fb")


PLAIN = [
    *(
        b"/",
        b"*",
        b"/a",
        b"/a/",
        b"/a/b.c",
        b"/...",
        b"/.hidden",
        b"/.hidden/x",
        b"/a/..b",
        b"/a/b..",
        b"/a.",
        b"/a..",
        b"/.a.",
    ),
    *(
        b"/a%20b",
        b"/caf%C3%A9",
        b"/caf\xc3\xa9",
        b"/%41",
        b"/a%252Fb",
        b"/a%25",
        b"/a%3Bb",
        b"/%2Ehidden",
        b"/.%2E.",
        b"/a+b",
    ),
    b"/~user/!$&'()*+,=:@",
]


@pytest.mark.parametrize("raw", PLAIN)
def test_plain_paths(raw: bytes) -> None:
    assert ambiguity(raw) is None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"/a%2Fb", "encoded_slash"),
        (b"/a%2fb", "encoded_slash"),
        (b"/a\\b", "backslash"),
        (b"/a%5Cb", "backslash"),
        (b"/a%5cb", "backslash"),
        (b"/.", "dot_segment"),
        (b"/..", "dot_segment"),
        (b"/./", "dot_segment"),
        (b"/a/./b", "dot_segment"),
        (b"/a/../b", "dot_segment"),
        (b"/a/..", "dot_segment"),
        (b"/%2e", "dot_segment"),
        (b"/a/%2E%2e/b", "dot_segment"),
        (b"/a/.%2e/b", "dot_segment"),
        (b"/a/%2e./b", "dot_segment"),
        (b"/a/..%2Fb", "encoded_slash"),
        (b"/..;/a", "semicolon"),
        (b"/..\\a", "backslash"),
        (b"/..\n", None),
        (b"//", "empty_segment"),
        (b"//a", "empty_segment"),
        (b"/a//b", "empty_segment"),
        (b"/a//", "empty_segment"),
        (b"/a%00b", "encoded_nul"),
        (b"/a;b=c", "semicolon"),
        (b"/a#b", "fragment"),
        (b"/%", "broken_escape"),
        (b"/%4", "broken_escape"),
        (b"/%zz", "broken_escape"),
        (b"/%u0041", "broken_escape"),
        (b"/a/%4g/b", "broken_escape"),
    ],
)
def test_ambiguous_paths(raw: bytes, reason: str | None) -> None:
    assert ambiguity(raw) == reason


SEGMENTS = st.sampled_from(
    [b"a", b"b.c", b"", b".", b"..", b"%2e", b"%2F", b"%41", b"%00", b";x", b"\\", b"%", b"%25", b"\xff"]
)
PATHS = st.lists(SEGMENTS, max_size=6).map(lambda parts: b"/" + b"/".join(parts)) | st.binary(max_size=30).map(
    lambda tail: b"/" + tail
)


@given(PATHS)
def test_canonical_never_raises_and_is_normal(raw: bytes) -> None:
    path = canonical(raw)
    assert path.startswith("/")
    assert "//" not in path and not {".", ".."} & set(path.split("/"))


@given(PATHS)
def test_a_plain_path_is_its_own_normal_form(raw: bytes) -> None:
    """Whoever decodes a plain path gets the path that the route was found by, whatever else they normalise."""
    if ambiguity(raw) is None:
        decoded = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
        assert canonical(raw).replace("%25", "%") == decoded
        assert canonical(raw).count("/") == raw.count(b"/") == decoded.count("/")
        assert "\0" not in decoded or b"\0" in raw


@given(st.binary(max_size=30))
def test_whatever_is_escaped_is_legal_and_means_the_same(raw: bytes) -> None:
    text = escaped(raw)
    assert re.fullmatch(TARGET_QUERY, text.decode("ascii"))
    assert unquote_to_bytes(text) == unquote_to_bytes(raw)
    assert escaped(text) == text
