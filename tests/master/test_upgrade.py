"""What one program leaves to the next, and what becomes of a program whose successor does not come."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config.dump import kept, restored
from gateway.config.model import Config
from gateway.config.values import Secret, TcpAddress
from gateway.ledger import Ledger
from gateway.master import upgrade
from gateway.master.events import SIGNALS
from gateway.master.sockets import Listening
from gateway.metrics.plan import Plan
from gateway.middleware import KINDS
from gateway.scoreboard import Scoreboard

CONFIG = {
    "listeners": [{"name": "web", "listen": "127.0.0.1:0"}],
    "upstreams": {"app": {"endpoints": ["a:1"], "sticky": {"cookie": "c", "secret": "hush-1234567890-hush"}}},
    "middleware": [{"kind": "jwt", "secret": "s" * 40, "algorithms": ["HS256"]}],
    "routes": [{"name": "app", "upstream": "app"}],
}


@pytest.fixture
def legacy() -> Iterator[upgrade.Legacy]:
    board, ledger = Scoreboard.create(), Ledger.create()
    config = Config.model_validate(CONFIG, context=KINDS)
    with (
        socket.socket() as control,
        closing(board),
        closing(ledger),
        closing(Listening.open(TcpAddress("127.0.0.1", 0), 16)) as listening,
    ):
        listening.key = "tcp:127.0.0.1:0"
        listening.listen(0)
        yield upgrade.Legacy(
            3, 1, board, Plan(), [control], config, listening={listening.key: listening}, ledger=ledger
        )


def descriptors() -> dict[int, bool]:
    """All that are open, and whether a program started by exec would have them."""
    found = {}
    for one in Path("/proc/self/fd").iterdir():
        try:
            found[int(one.name)] = os.get_inheritable(int(one.name))
        except OSError:
            continue  # that of the listing itself
    return found


def test_the_next_program_is_told_everything(legacy: upgrade.Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def execve(path: str, arguments: list[str], environ: Mapping[str, str]) -> None:
        fd = int(environ["GATEWAY_UPGRADE"])
        assert os.get_inheritable(fd)
        told.update(msgspec.json.decode(os.pread(fd, 1 << 20, 0)))
        raise OSError(2, "No such file or directory")

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(OSError):
        upgrade.become("gateway.toml", legacy, {}, [])
    assert restored(told["config"], KINDS, told["marks"]) == legacy.config
    assert told["generation"] == 3 and len(told["listening"]) == 1


@pytest.mark.parametrize("error", [OSError(2, "No such file or directory"), TypeError("a mistake")])
def test_a_program_that_can_not_become_another_is_what_it_was(
    legacy: upgrade.Legacy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def execve(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "execve", execve)
    ours, theirs = socket.socketpair()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with ours, theirs, socket.socket() as given:
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            open_before = descriptors()
            upgrade.Upgrade("gateway.toml", {}, [given.fileno()]).become(legacy)
            assert descriptors() == open_before
            assert signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False) == theirs.fileno()
        finally:
            signal.set_wakeup_fd(before)
    assert not set(signal.pthread_sigmask(signal.SIG_BLOCK, [])) & set(SIGNALS) - set(blocked)
    assert "upgrade refused, this program goes on: " in caplog.text
    assert ("No such file" in caplog.text) or ("TypeError: a mistake" in caplog.text)


def test_what_can_not_be_written_down_is_refused(
    legacy: upgrade.Legacy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Plan, "dump", lambda self: [object()])
    before = descriptors()
    upgrade.Upgrade("gateway.toml", {}, []).become(legacy)
    assert descriptors() == before
    assert "upgrade refused, this program goes on: TypeError: object can't be handed on" in caplog.text


def test_secrets_stay_secrets(legacy: upgrade.Legacy) -> None:
    assert legacy.config is not None
    data, marks = kept(legacy.config)
    found = restored(data, KINDS, marks)
    assert found is not None
    sticky = found.upstreams["app"].sticky
    assert sticky is not None and type(sticky.secret) is Secret
