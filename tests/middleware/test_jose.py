"""How a token is read: there is one way to write each, and every other one is refused."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.middleware.identity.jose import TokenRefused, claims_of, decode64, read, read_json
from tests.middleware.tokens import b64, token


def headed(header: bytes, payload: bytes = b"{}", signature: bytes = b"s") -> bytes:
    return b".".join((b64(header), b64(payload), b64(signature)))


def test_the_parts() -> None:
    one = read(headed(b'{"alg":"ES256","kid":"k","typ":"application/AT+jwt","x5t":"a"}', b'{"a":1}', b"\xff"))
    assert (one.alg, one.kid, one.kind, one.signature) == ("ES256", "k", "at+jwt", b"\xff")
    assert one.signed == b64(b'{"alg":"ES256","kid":"k","typ":"application/AT+jwt","x5t":"a"}') + b"." + b64(b'{"a":1}')
    assert claims_of(one.payload) == {"a": 1}
    assert read(headed(b'{"alg":"ES256"}')).kid is None


GOOD = headed(b'{"alg":"ES256"}')
A, B, C = GOOD.split(b".")


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b".",
        b"..",
        b"...",
        A,
        A + b"." + B,
        A + b"." + B + b".",  # no signature
        b"." + B + b"." + C,
        A + b".." + C,
        GOOD + b".",
        GOOD + b"." + C,
        b".".join((A, B, C, C, C)),  # a JWE
        GOOD + b"\n",
        b" " + GOOD,
        GOOD + b" ",
        GOOD.replace(b".", b". ", 1),
        GOOD + b"=",
        GOOD + b"==",
        A + b"=." + B + b"." + C,
        GOOD + b", " + GOOD,
        GOOD + b"\x00",
        GOOD + b"\xc3\xa4",
        b".".join((A, B, b"+/+/")),  # base64, not base64url
        b".".join((A, B, b"A")),  # six bits
        b".".join((A, B, b"AB")),  # bits behind the last byte
        json.dumps({"payload": B.decode(), "protected": A.decode(), "signature": C.decode()}).encode(),
    ],
)
def test_not_a_token(written: bytes) -> None:
    read(GOOD)
    with pytest.raises(TokenRefused, match="malformed"):
        read(written)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b'"alg"',
        b"{}",
        b'{"alg":null}',
        b'{"alg":["ES256"]}',
        b'{"alg":1}',
        b'{"alg":"ES256","alg":"none"}',
        b'{"alg":"ES256","kid":"a","kid":"b"}',
        b'{"alg":"ES256","kid":1}',
        b'{"alg":"ES256","kid":null}',
        b'{"alg":"ES256","kid":["a"]}',
        b'{"alg":"ES256","kid":""}',
        b'{"alg":"ES256","kid":"%b"}' % (b"k" * 257),
        b'{"alg":"ES256","typ":1}',
        b'{"alg":"ES256","x":"\xff"}',  # not UTF-8
        b'{"alg":"ES256","x":"\\ud800"}',  # half a character
        b'\xef\xbb\xbf{"alg":"ES256"}',  # a byte order mark
        '{"alg":"ES256"}'.encode("utf-16"),
        b'{"alg":"ES256","x":NaN}',
        b'{"alg":"ES256","x":1e999}',
        b'{"alg":"ES256","x":01}',
        b'{"alg":"ES256",}',
        b'{"alg":"ES256"} x',
        b'{"alg":"ES256","x":%b}' % (b"[" * 5000 + b"]" * 5000),
        b'{"alg":"ES256","x":%b}' % (b"[" * 100 + b"]" * 100),
        b'{"alg":"ES256","x":%b}' % (b"9" * 5000),
    ],
)
def test_not_a_header(header: bytes) -> None:
    with pytest.raises(TokenRefused, match="malformed"):
        read(headed(header))


@pytest.mark.parametrize("name", ["crit", "b64", "jwk", "jku", "x5u", "x5c", "enc", "zip"])
@pytest.mark.parametrize("value", [[], None, False, True, "x", {"kty": "oct"}])
def test_what_a_header_must_not_bring_along(name: str, value: object) -> None:
    with pytest.raises(TokenRefused, match="header parameter"):
        read(headed(json.dumps({"alg": "ES256", name: value}).encode()))


@pytest.mark.parametrize(
    "payload", [b"", b"1", b"[]", b"{", b'{"a":1,"a":1}', b'{"a":{"b":1,"b":2}}', b'{"a":-Infinity}']
)
def test_not_claims(payload: bytes) -> None:
    with pytest.raises(TokenRefused, match="malformed"):
        claims_of(b64(payload))


@given(st.binary(max_size=40))
def test_base64url_has_one_form(data: bytes) -> None:
    assert decode64(b64(data)) == data


@given(st.text("AQgw-_=+/ \n", max_size=9))
def test_what_is_read_is_what_would_be_written(text: str) -> None:
    try:
        data = decode64(text.encode())
    except ValueError:
        return
    assert urlsafe_b64encode(data).rstrip(b"=") == text.encode()


@given(st.binary(max_size=60))
def test_json_of_any_bytes(data: bytes) -> None:
    """What is read can be written again."""
    try:
        value = read_json(data)
    except ValueError:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    for written in (data, b".".join((b64(data), b64(data), b64(data))), A + b"." + data):
        try:
            claims_of(read(written).payload)
        except TokenRefused:
            pass


def test_a_token_that_a_library_makes() -> None:
    assert claims_of(read(token()).payload)["sub"] == "ann"
