"""A list of endpoints in a file: in two formats, changed in each way, and broken."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.errors import DiscoveryError
from gateway.upstream.discovery import Found
from gateway.upstream.discovery.file import File
from tests.upstream.discovery import addresses, looked_up


def found(file: File) -> Found:
    return asyncio.run(file.find())


def fails(file: File) -> str:
    with pytest.raises(DiscoveryError) as caught:
        found(file)
    assert caught.value.again == 1
    return str(caught.value)


def reading(path: Path) -> File:
    return File(looked_up(kind="file", path=str(path)))


TOML = """
endpoints = [
  "10.0.0.2:80",
  { address = "http://10.0.0.1:80/base", weight = 3, max_requests = 7, backup = true },
]
"""
JSON = '["10.0.0.2:80", {"address": "http://10.0.0.1:80/base", "weight": 3, "max_requests": 7, "backup": true}]'


@pytest.mark.parametrize(("name", "text"), [("a.toml", TOML), ("a.json", JSON), ("a.json", f'{{"endpoints": {JSON}}}')])
def test_a_list(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    there = found(reading(path))
    assert [(str(one.address), one.weight, one.max_requests, one.backup) for one in there.endpoints] == [
        ("10.0.0.2:80", 1, None, False),
        ("http://10.0.0.1:80/base", 3, 7, True),
    ]
    assert (there.again, there.trouble) == (1, "")


def test_a_list_may_be_empty_but_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("endpoints = []")
    assert found(reading(path)).endpoints == ()
    path.write_text("")
    assert fails(reading(path)) == f"{path}:1:1: endpoints: required, but missing"


def test_it_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('endpoints = ["a:1"]')
    file = reading(path)
    first = found(file)
    assert found(file) is first
    path.write_text('endpoints = ["b:1", "c:1"]')
    assert addresses(found(file).endpoints) == ["b:1", "c:1"]
    other = tmp_path / "b.toml"
    other.write_text('endpoints = ["d:1", "c:1"]')
    at = path.stat().st_mtime_ns
    os.utime(other, ns=(at, at))  # neither time nor size tells them apart
    other.replace(path)
    assert addresses(found(file).endpoints) == ["d:1", "c:1"]
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    linked = reading(link)
    assert addresses(found(linked).endpoints) == ["d:1", "c:1"]
    (tmp_path / "next.toml").write_text('endpoints = ["e:1"]')
    (tmp_path / "new").symlink_to(tmp_path / "next.toml")
    (tmp_path / "new").replace(link)
    assert addresses(found(linked).endpoints) == ["e:1"]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.toml", "endpoints = [\n", "{}:2:1: invalid value at the end of the file"),
        ("a.toml", "x = 1\nendpoints = []", '{}:1:1: x: unknown key "x"'),
        ("a.toml", "endpoints = 7", "{}:1:1: endpoints: expected an array, got 7"),
        (
            "a.toml",
            'endpoints = ["a:1",\n  { address = "b:1", wieght = 2 }, "a:1"]',
            '{}:2:22: endpoints[1].wieght: unknown key "wieght" (did you mean "weight"?)',
        ),
        (
            "a.toml",
            '[[endpoints]]\naddress = "a:1"\n[[endpoints]]\naddress = "a:1"',
            "{}:3:3: endpoints[1]: a:1 is listed already",
        ),
        ("a.json", "[\n", "{}:2:1: expecting value"),
        ("a.json", "[" + "1" * 5000 + "]", "{}: Exceeds the limit"),
        ("a.json", "7", '{}:1:1: expected an array, or a table with "endpoints"'),
        ("a.json", "[" * 100_000, "{}: nested too deeply"),
        (
            "a.json",
            '{"x": [1],\n "endpoints": ["a:1",\n {"address": "b:1", "weight": 0}]}',
            '{}:1:2: x: unknown key "x", and 1 more',
        ),
        (
            "a.json",
            '["a:1",\n {"address": "b:1", "weight": 0}]',
            "{}:2:2: endpoints[1].weight: expected a whole number from 1 to 65535, got 0",
        ),
        ("a.json", '{"endpoints": ["a:1", "a"]}', "{}:1:23: endpoints[1]: expected an address"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert fails(reading(path)).startswith(sentence.format(path))


def test_a_broken_file_fails_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    file = reading(path)
    assert fails(file) == fails(file) == f"{path}: no such file"
    path.write_bytes(b'["\xff"]')
    assert fails(file) == f"{path}:1:3: not UTF-8: byte 0xff"
    path.write_text('["a:1"]')
    assert addresses(found(file).endpoints) == ["a:1"]
    path.unlink()
    assert fails(file) == f"{path}: no such file"
    path.mkdir()
    assert fails(file) == f"{path}: is a directory"


@pytest.mark.parametrize("is_written", [False, True])
def test_a_fifo_is_not_waited_for(tmp_path: Path, is_written: bool) -> None:
    path = tmp_path / "a.toml"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR) if is_written else None
    assert fails(reading(path)) == f"{path}: not a regular file"
    if writer is not None:
        os.close(writer)


def test_what_has_no_end_is_not_read() -> None:
    assert fails(reading(Path("/dev/zero"))) == "/dev/zero: not a regular file"


def test_a_file_may_not_be_larger_than_a_list_can_be(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"endpoints = []" + b"\n" * ((1 << 20) - 14))
    file = reading(path)
    assert found(file).endpoints == ()
    with path.open("ab") as more:
        more.truncate(1 << 40)
    assert fails(file) == f"{path}: larger than 1048576 bytes"
