"""What a forked child is given, its first steps, and how master and child talk.

They talk over one SEQPACKET socket pair: a message is a JSON object in one packet, descriptors ride along. Master to
child: {"do": "go" | "drain" | "reopen" | "endpoints" | "document" | "refresh"}. Child to master: {"say": "ready" |
"failed" | "left" | "endpoints" | "document" | "refresh"}. The kernel keeps only so much for whoever does not read. So
lists of endpoints and documents, which can be many and large, are sent one message at a time, each when the one before
was read (`is_read`): there is always room for an order.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import grp
import logging
import os
import pwd
import signal
import socket
import sys
import termios
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec
from setproctitle import setproctitle

from gateway.config.model import Config, Process
from gateway.documents import Documents
from gateway.errors import GatewayError, StartError
from gateway.findings import Findings, read
from gateway.ledger import Ledger
from gateway.log import Files, name_process
from gateway.metrics.plan import Plan
from gateway.scoreboard import Cells, Fact, Role, Scoreboard, State

log = logging.getLogger("gateway")

# The child could not start and never will with this configuration: the master must not try again (as uvicorn has it).
EXIT_BOOT = 3

# The kernel takes some 200 KiB in one packet (net.core.wmem_default); half of it is what we put into one.
_MESSAGE = 256 * 1024
_PART = 100 * 1024
_MOST_FDS = 8
_PR_SET_PDEATHSIG = 1
# What a terminal or a supervisor may send to the whole group: the master's to act on, not ours.
_NOT_OURS = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


@dataclass(slots=True)
class Birth:
    """Everything a child inherits. `sockets`: the listening sockets of its slot, by listener name; `own`: where the
    gateway listens, all of it, as "[::]:80"."""

    role: Role
    slot: int
    generation: int
    workers: int
    config: Config
    board: Scoreboard
    ledger: Ledger
    plan: Plan
    seat: int
    sockets: dict[str, socket.socket]
    channel: socket.socket
    files: Files
    master: int
    close_foreign: Callable[[], None]  # closes this process' copies of what belongs to other children
    findings: Findings = field(default_factory=Findings)
    documents: Documents = field(default_factory=Documents)
    own: tuple[str, ...] = ()

    @property
    def cells(self) -> Cells:
        return self.board.seat(self.seat)

    @property
    def name(self) -> str:
        return "observer" if self.role is Role.OBSERVER else f"worker {self.slot}"


def spend(birth: Birth, live: Callable[[], None]) -> NoReturn:
    """A child's whole life, whatever its role: the first steps, then `live`. What ends it early is told to the master,
    and said by the exit code."""
    code = EXIT_BOOT
    try:
        begin(birth)
        live()
        code = 0
    except GatewayError as error:
        tell(birth.channel, {"say": "failed", "why": str(error)})
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else EXIT_BOOT
    except BaseException as error:
        log.exception("the %s broke", birth.role.name.lower())
        tell(birth.channel, {"say": "failed", "why": f"{type(error).__name__}: {error}"})
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def begin(birth: Birth) -> None:
    """The first steps after fork, in this order: nothing of the master's may fire in the child. Raises StartError."""
    signal.set_wakeup_fd(-1)
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    birth.close_foreign()
    name_process(f"{birth.name} [generation {birth.generation}]")
    show(birth, State.BOOTING)
    try:
        faulthandler.enable(birth.files.error)  # on ABRT, which the master sends when the event loop hangs
    except (OSError, RuntimeError, ValueError):
        pass
    drop_privileges(birth.config.process)
    # After the change of user, which would clear it: when the master is killed the workers finish and go too.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != birth.master:
        raise StartError("the master is gone")


def show(birth: Birth, state: State) -> None:
    """Say which state we are in, to the scoreboard and to `ps`."""
    birth.cells[Fact.STATE] = state
    setproctitle(f"gateway: {birth.name} [generation {birth.generation}] {state.name.lower()}")


def drop_privileges(process: Process) -> None:
    """Become `user` and `group`. Only root can, and only root needs to. Raises StartError."""
    if os.geteuid() != 0 or (process.user is None and process.group is None):
        return
    uid, gid = ids(process)
    if gid is not None:
        os.setgroups([])
        os.setgid(gid)
    if uid is not None:
        if process.user is not None:
            os.initgroups(process.user, gid if gid is not None else os.getgid())
        os.setuid(uid)


def ids(process: Process) -> tuple[int | None, int | None]:
    """The numbers of `user` and `group`. Raises StartError for names nobody has."""
    uid = gid = None
    if process.user is not None:
        try:
            entry = pwd.getpwnam(process.user)
        except KeyError:
            raise StartError(f'process.user: there is no user "{process.user}"') from None
        uid, gid = entry.pw_uid, entry.pw_gid
    if process.group is not None:
        try:
            gid = grp.getgrnam(process.group).gr_gid
        except KeyError:
            raise StartError(f'process.group: there is no group "{process.group}"') from None
    return uid, gid


def tell(channel: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> bool:
    """Send a message; False when the other side is gone or does not read."""
    try:
        socket.send_fds(channel, [msgspec.json.encode(message)], fds or [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def is_read(channel: socket.socket) -> bool:
    """Whether the other side has taken everything that was sent to it."""
    unread = array("i", [0])
    fcntl.ioctl(channel, termios.TIOCOUTQ, unread)
    return unread[0] == 0


def batch(parts: dict[str, Any]) -> dict[str, Any]:
    """As many of these, from the first on, as go into one message; one at least."""
    taken: dict[str, Any] = {}
    size = 0
    for name, part in parts.items():
        size += len(msgspec.json.encode(part)) + len(name)
        if taken and size > _PART:
            break
        taken[name] = part
    return taken


def learn(birth: Birth, message: dict[str, Any]) -> list[str]:
    """Take in what the master says of endpoints; the upstreams that have others now."""
    changed = []
    findings = birth.findings
    for name, endpoint in message["gone"]:
        birth.plan.forget(name, endpoint)
    for name, part in message["found"].items():
        findings.trouble.pop(name, None)
        if part["trouble"]:
            findings.trouble[name] = part["trouble"]
        if part["endpoints"] is None:
            continue
        found = read(part["endpoints"])
        for one, places in zip(found, part["places"], strict=True):
            birth.plan.put(name, str(one.address), places)
        if findings.found.get(name) != found:
            findings.found[name] = found
            changed.append(name)
    return changed


def hear(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors. No message: the other side is gone. BlockingIOError: there is none yet."""
    try:
        data, fds, _, _ = socket.recv_fds(channel, _MESSAGE, _MOST_FDS, socket.MSG_DONTWAIT)
    except BlockingIOError:
        raise
    except OSError:
        return None, []
    for fd in fds:
        os.set_inheritable(fd, False)
    return (msgspec.json.decode(data) if data else None), fds
