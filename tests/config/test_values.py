"""Units and addresses: what is taken, what is refused in which words, and that all of it can be written back."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.values import (
    Address,
    FdAddress,
    Origin,
    SystemdAddress,
    TcpAddress,
    UnixAddress,
    format_byte_rate,
    format_duration,
    format_size,
    parse_byte_rate,
    parse_duration,
    parse_endpoint,
    parse_http_url,
    parse_listen,
    parse_origin,
    parse_rate,
    parse_replacement,
    parse_size,
    shown,
)

from .conftest import UNHURRIED


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_duration, "250ms", 0.25),
        (parse_duration, "30s", 30.0),
        (parse_duration, "1.5s", 1.5),
        (parse_duration, "5m", 300.0),
        (parse_duration, "1h", 3600.0),
        (parse_size, "1B", 1),
        (parse_size, "64KiB", 65536),
        (parse_size, "10MiB", 10 << 20),
        (parse_size, "1.5KiB", 1536),
        (parse_size, "1GB", 10**9),
        (parse_size, "3kB", 3000),
        (parse_size, "3KB", 3000),
        (parse_rate, "100/s", 100.0),
        (parse_rate, "30/m", 0.5),
        (parse_rate, "36/h", 0.01),
        (parse_byte_rate, "1KiB/s", 1024.0),
        (parse_byte_rate, "6MB/m", 1e5),
        (parse_byte_rate, "0B/s", 0.0),
    ],
)
def test_quantity(parse: Callable[[object], float], text: str, value: float) -> None:
    assert parse(text) == value


OTHERS: list[object] = [5, 5.0, True, ["1s"], {}]


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        *((parse_duration, text) for text in ("", "30", "s", "-1s", "0s", "1d", "1m30s", "٣s", "1s ", "1e3s", "9999h")),
        *((parse_duration, other) for other in OTHERS),
        *((parse_size, text) for text in ("", "10", "10K", "10kb", "0B", "0.5B", "-1B", "1 KiB", "9999999999TiB")),
        *((parse_size, other) for other in OTHERS),
        *((parse_rate, text) for text in ("", "100", "100/d", "/s")),
        *((parse_rate, other) for other in OTHERS),
        *((parse_byte_rate, text) for text in ("100/s", "1KiB", "", "-1B/s", "9" * 400 + "B/s")),
        *((parse_byte_rate, other) for other in OTHERS),
    ],
)
def test_no_quantity(parse: Callable[[object], float], value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected .*, got "):
        parse(value)


@UNHURRIED
@given(st.floats(0.000001, 365 * 24 * 3600))
def test_a_duration_survives_being_written(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-9, abs=1e-9)


@UNHURRIED
@given(st.integers(1, 1 << 62))
def test_a_size_survives_being_written(size: int) -> None:
    # Above 2^53 a number of bytes is not exact as a float, and nobody writes one.
    assert parse_size(format_size(size)) == (size if size < 1 << 53 else pytest.approx(size))


@pytest.mark.parametrize("text", ["250ms", "30s", "90s", "5m", "1h", "0.5ms"])
def test_durations_are_written_in_the_unit_that_people_use(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["64KiB", "10MiB", "1GB", "1000B", "512MB", "1023B"])
def test_sizes_are_written_in_the_unit_that_people_use(text: str) -> None:
    assert format_size(parse_size(text)) == text.replace("1000B", "1kB")


@UNHURRIED
@given(st.integers(0, 1 << 53), st.sampled_from("smh"))
def test_a_byte_rate_survives_being_written(size: int, period: str) -> None:
    rate = parse_byte_rate(f"{size}B/{period}")
    assert parse_byte_rate(format_byte_rate(rate)) == rate


@pytest.mark.parametrize("text", ["1KiB/s", "6MB/m", "5MB/h", "0B/s", "0.5B/s", "1000B/s", "7B/h"])
def test_byte_rates_are_written_as_people_do(text: str) -> None:
    written = {"6MB/m": "100kB/s", "1000B/s": "1kB/s", "0.5B/s": "30B/m"}
    assert format_byte_rate(parse_byte_rate(text)) == written.get(text, text)


LISTEN: list[tuple[str, Address]] = [
    (":8080", TcpAddress("", 8080)),
    ("127.0.0.1:0", TcpAddress("127.0.0.1", 0)),
    ("localhost:80", TcpAddress("localhost", 80)),
    ("[::]:443", TcpAddress("::", 443)),
    ("[2001:db8::1]:443", TcpAddress("2001:db8::1", 443)),
    ("[fe80::1%eth0]:443", TcpAddress("fe80::1%eth0", 443)),
    ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
    ("unix:/run/a:b", UnixAddress("/run/a:b")),
    ("fd:3", FdAddress(3)),
    ("systemd:web", SystemdAddress("web")),
]


@pytest.mark.parametrize(("text", "address"), LISTEN)
def test_listen_address(text: str, address: Address) -> None:
    assert parse_listen(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "value",
    [
        *("", "8080", ":", ":x", ":65536", ":-1", "::1:80", "[::1]", "[::1]80", "[1.2.3.4]:80", "*:80", "web.local:80"),
        *("10.0.0.256:80", "unix:", "unix:app.sock", "unix:/run/", "unix:/\0", "unix:/" + "x" * 107),
        *("fd:", "fd:-1", "fd:x", "systemd:", "systemd:a b", "http://1.2.3.4:80", "1.2.3.4:٨٠", "1.2.3.4:80\n"),
        *(8080, None, True, ["a:1"]),
    ],
)
def test_no_listen_address(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected|at most 107 bytes"):
        parse_listen(value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:8080", TcpAddress("10.0.0.1", 8080)),
        ("app.internal:8080", TcpAddress("app.internal", 8080)),
        ("my_app:80", TcpAddress("my_app", 80)),
        ("[::1]:8080", TcpAddress("::1", 8080)),
        ("http://10.0.0.1:8080", TcpAddress("10.0.0.1", 8080)),
        ("http://app.internal", TcpAddress("app.internal", 80)),
        ("http://[::1]", TcpAddress("::1", 80)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
    ],
)
def test_endpoint_address(text: str, address: Address) -> None:
    assert parse_endpoint(text) == address
    assert parse_endpoint(str(address)) == address


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (":8080", "expected an address"),
        ("app", "expected an address"),
        ("app:0", "expected an address"),
        ("a b:80", "expected an address"),
        ("-a:80", "expected an address"),
        ("a..b:80", "expected an address"),
        ("user@app:80", "expected an address"),
        ("http://", "expected an address"),
        ("http://:80", "expected an address"),
        ("fd:3", "expected an address"),
        ("http://app:80/base", "expected an address"),
        ("https://app:443", '"https://" is not supported here'),
        (9001, "got 9001"),
    ],
)
def test_no_endpoint_address(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_endpoint(value)


@UNHURRIED
@given(st.text(max_size=20))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    for parse in (parse_listen, parse_endpoint):
        try:
            address = parse(text)
        except ValueError:
            continue
        assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "origin", "written", "authority"),
    [
        ("app:8080", Origin(TcpAddress("app", 8080)), "app:8080", "app:8080"),
        ("app:80", Origin(TcpAddress("app", 80)), "app:80", "app"),
        ("http://app", Origin(TcpAddress("app", 80)), "app:80", "app"),
        ("http://app/", Origin(TcpAddress("app", 80)), "app:80", "app"),
        ("http://app:81/base", Origin(TcpAddress("app", 81), "/base"), "http://app:81/base", "app:81"),
        ("http://app/base/", Origin(TcpAddress("app", 80), "/base/"), "http://app:80/base/", "app"),
        ("http://[::1]/a%2Fb", Origin(TcpAddress("::1", 80), "/a%2Fb"), "http://[::1]:80/a%2Fb", "[::1]"),
        ("unix:/run/app.sock", Origin(UnixAddress("/run/app.sock")), "unix:/run/app.sock", "localhost"),
    ],
)
def test_origins(text: str, origin: Origin, written: str, authority: str) -> None:
    assert parse_origin(text) == origin == parse_origin(origin) == parse_origin(str(origin))
    assert (str(origin), origin.authority) == (written, authority)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (":8080", "expected an address"),
        ("app", "expected an address"),
        ("http:///base", "expected an address"),
        ("http://user@app/base", "expected an address"),
        ("https://app/base", '"https://" is not supported here'),
        ("http://app/base?a=b", "no query and no fragment"),
        ("http://app/base#a", "no query and no fragment"),
        ("http://app/a b", "escaped form"),
        ("http://app/%zz", "escaped form"),
        ("http://app/é", "escaped form"),
        ("http://app/a/../b", "escaped form"),
        ("http://app/.", "escaped form"),
        (9001, "got 9001"),
    ],
)
def test_no_origin(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_origin(value)


@pytest.mark.parametrize(
    ("text", "pattern", "pieces"),
    [
        ("/new", "/old", ("/new",)),
        (r"/new/\1", "/old/(.*)", ("/new/", 1, "")),
        (r"/\g<b>/\g<1>?q=\2", "/(?P<a>.)/(?P<b>.)", ("/", 2, "/", 1, "?q=", 2, "")),
        (r"/\0", "/", ("/", 0, "")),
    ],
)
def test_replacements(text: str, pattern: str, pieces: tuple[str | int, ...]) -> None:
    assert parse_replacement(text, re.compile(pattern)) == pieces


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (r"/\2", "no group"),
        (r"/\g<c>", "no group"),
        (r"\1", "expected a path"),
        (r"/\n", "expected a path"),
        ("/a b", "expected a path"),
        ("/a\r\n", "expected a path"),
        ("/a#b", "expected a path"),
        (r"/%4\1", "expected a path"),
        ("", "expected a path"),
    ],
)
def test_no_replacement(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_replacement(text, re.compile("/(.)"))


def test_values_are_shown_in_the_words_of_toml() -> None:
    values = ["x" * 99, 'a"b', 5, 1.5, float("inf"), True, [1], {"a": 1}, 10**40]
    assert [shown(value) for value in values] == [
        '"' + "x" * 57 + '..."',
        '"a\\"b"',
        "5",
        "1.5",
        "inf",
        "true",
        "an array",
        "a table",
        "a very large number",
    ]


@pytest.mark.parametrize("parse", [parse_http_url, parse_origin, parse_endpoint, parse_listen, parse_duration])
@pytest.mark.parametrize("text", ["https://ann:pass/word@id.example/", "ftp://ann:pass@word@id.example/"])
def test_nobody_is_shown_the_password_of_a_url(parse: Callable[[object], object], text: str) -> None:
    with pytest.raises(ValueError) as failed:
        parse(text)
    assert "pass" not in str(failed.value) and "word" not in str(failed.value)
