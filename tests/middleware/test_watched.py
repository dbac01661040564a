"""Files that are read again when they change."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from threading import Event

import pytest

from gateway.errors import StartError
from gateway.middleware.identity.watched import LOOK, Watched
from tests.middleware.rereading import read_again
from tests.upstream.peer import live


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def number(data: bytes) -> int:
    return int(data)


@live
async def test_it_is_looked_at_once_in_a_while(tmp_path: Path) -> None:
    path, clock, heard = tmp_path / "number", Clock(), list[int]()
    path.write_text("1")
    file = Watched(str(path), number, 10, heard.append, clock)
    path.write_text("22")
    assert file.look() == 1
    clock.now += LOOK
    assert await read_again(file) == file.look() == 22 and heard == [22]
    clock.now += LOOK
    assert await read_again(file) == 22 and heard == [22]


@live
async def test_what_it_said_before_is_gone_by_while_it_is_read(tmp_path: Path) -> None:
    """Nobody waits for it, and it is read once."""
    path, clock, gate, reads = tmp_path / "number", Clock(), Event(), list[bytes]()
    path.write_text("1")
    gate.set()

    def slowly(data: bytes) -> int:
        reads.append(data)
        assert gate.wait(60)
        return int(data)

    file = Watched(str(path), slowly, 10, clock=clock)
    gate.clear()
    path.write_text("22")
    for _ in range(3):
        clock.now += LOOK
        assert file.look() == 1
        await asyncio.sleep(0.01)
    path.write_text("333")
    gate.set()
    assert await read_again(file) == 22
    clock.now += LOOK
    assert await read_again(file) == 333 and reads == [b"1", b"22", b"333"], "written while it was read: a change"


@live
async def test_who_leaves_while_it_is_read(tmp_path: Path) -> None:
    path, clock = tmp_path / "number", Clock()
    path.write_text("1")
    file = Watched(str(path), number, 10, clock=clock)
    path.write_text("22")
    clock.now += LOOK
    file.look()
    file.close()
    await asyncio.sleep(0)
    clock.now += LOOK
    assert await read_again(file) == 22


@live
async def test_one_that_takes_its_place(tmp_path: Path) -> None:
    """Of the same size and time: as `cp -p` and Kubernetes' links have it."""
    path, other, clock = tmp_path / "number", tmp_path / "other", Clock()
    path.write_text("1")
    other.write_text("2")
    os.utime(path, (1, 1))
    os.utime(other, (1, 1))
    file = Watched(str(path), number, 10, clock=clock)
    other.rename(path)
    clock.now += LOOK
    assert await read_again(file) == 2
    link, new = tmp_path / "link", tmp_path / "new"
    link.symlink_to("number")
    linked = Watched(str(link), number, 10, clock=clock)
    (tmp_path / "third").write_text("3")
    new.symlink_to("third")
    new.rename(link)
    clock.now += LOOK
    assert await read_again(linked) == 3


@live
async def test_what_can_not_be_understood_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock, heard = tmp_path / "number", Clock(), list[int]()
    path.write_text("1")
    file = Watched(str(path), number, 10, heard.append, clock)
    for bad in ("x", "1" * 11, None):
        path.unlink() if bad is None else path.write_text(bad)
        for _ in range(3):
            clock.now += LOOK
            assert await read_again(file) == 1
    assert len(caplog.records) == 3 and not heard, "each is told of once"
    path.write_text("2")
    clock.now += LOOK
    assert await read_again(file) == 2 and heard == [2]


def test_what_can_not_be_read_at_all(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    no, pipe = tmp_path / "no", tmp_path / "pipe"
    for path, said in ((tmp_path, "Is a directory"), (no, "there is no such file"), (pipe, "invalid")):
        with pytest.raises(StartError, match=f"{path}: .*{said}"):
            Watched(str(path), number, 10)
