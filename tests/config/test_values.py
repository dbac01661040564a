"""Units and addresses: what is taken, what is refused in which words, and that all of it can be written back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.values import (
    Address,
    FdAddress,
    SystemdAddress,
    TcpAddress,
    UnixAddress,
    format_duration,
    format_size,
    parse_byte_rate,
    parse_duration,
    parse_endpoint,
    parse_listen,
    parse_rate,
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
        *((parse_byte_rate, text) for text in ("100/s", "1KiB", "")),
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
        ("http://app:80/base", "a path is not supported"),
        ("http://app:80/", "a path is not supported"),
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
