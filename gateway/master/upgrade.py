"""Upgrade in place (`USR2`): the newly installed program takes over under the same PID.

First the new program reads the configuration in a process of its own; if it can't even do that, nothing happens. Then
this process becomes it by exec, and finds in a memfd what it inherits: sockets, scoreboard, ledger, children. To the
new master the old workers are the generation that serves; it starts the next one as for a reload, and if that fails
they go on.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import msgspec

from gateway.config.dump import kept, restored
from gateway.config.layers import Kinds
from gateway.config.model import Config, Log
from gateway.documents import Documents
from gateway.errors import StartError
from gateway.findings import Findings, read, written
from gateway.ledger import Ledger
from gateway.log import Files
from gateway.master.children import Child
from gateway.master.events import SIGNALS
from gateway.master.generation import ADMIN, Generation, key
from gateway.master.sockets import Listening
from gateway.metrics.plan import Plan
from gateway.scoreboard import Role, Scoreboard, State

log = logging.getLogger("gateway")

_VARIABLE = "GATEWAY_UPGRADE"
_FORMAT = 1  # of the state below; a program that reads another one refuses in the rehearsal
_REHEARSAL = "GATEWAY_REHEARSAL"


@dataclass(slots=True)
class Legacy:
    """What a master leaves to the one that follows."""

    generation: int
    wanted: int
    board: Scoreboard
    plan: Plan
    control: list[socket.socket]
    config: Config | None  # what the workers run by; None when the program that follows does not understand it
    listening: dict[str, Listening] = field(default_factory=dict)  # by key
    children: list[Child] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    documents: Documents = field(default_factory=Documents)
    ledger: Ledger | None = None


class Rehearsal:
    """The installed program checks the configuration; its exit status says whether it can take over.

    It writes to a file: nobody reads along, and a pipe that is full of mistakes would hold it for ever. Raises OSError.
    """

    def __init__(self, config: str) -> None:
        command = [sys.executable, "-m", "gateway", "check", "-c", config]
        self._output: BinaryIO = os.fdopen(os.memfd_create("gateway-rehearsal"), "w+b")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**os.environ, _REHEARSAL: str(_FORMAT)},
            )
        except BaseException:
            self._output.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self, code: int) -> str:
        """It was reaped, with this exit status: what it said."""
        self._process.returncode = code
        with self._output as output:
            output.seek(0)
            return output.read().decode(errors="replace").strip()


class Upgrade:
    """The running program's side, from the wish to the exec.

    config: path of the configuration. environ, fds: what the service manager gave us, for the next one to find as we
    did.
    """

    def __init__(self, config: str, environ: Mapping[str, str], fds: Iterable[int]) -> None:
        self._config = config
        self._environ = environ
        self._fds = list(fds)
        self._rehearsal: Rehearsal | None = None
        self.is_wanted = False  # it was asked for while a reload was under way

    @property
    def pid(self) -> int | None:
        """Of the rehearsal, while there is one."""
        return self._rehearsal.pid if self._rehearsal is not None else None

    def rehearse(self) -> None:
        """Let the installed program prove itself before it replaces this one."""
        log.info("upgrade: the installed program reads the configuration")
        try:
            self._rehearsal = Rehearsal(self._config)
        except OSError as error:
            self.refuse(str(error.strerror))

    def rehearsed(self, code: int) -> str:
        """The rehearsal was reaped, with this exit status: why there is no upgrade, "" when there can be one."""
        rehearsal, self._rehearsal = self._rehearsal, None
        said = rehearsal.ended(code) if rehearsal is not None else ""
        return (said or f"the installed one ended with {code}") if code != 0 else ""

    def refuse(self, reason: str) -> None:
        log.error("upgrade refused, this program goes on: %s", reason)

    def become(self, legacy: Legacy) -> None:
        """Returns only if that fails."""
        try:
            become(self._config, legacy, self._environ, self._fds)
        except OSError as error:
            self.refuse(str(error.strerror))
        except Exception as error:  # a mistake of ours: clients must not pay for it
            self.refuse(f"{type(error).__name__}: {error}")


def become(config: str, legacy: Legacy, environ: Mapping[str, str], fds: Iterable[int]) -> None:
    """Replace this program by the installed one. Returns only by raising what went wrong, and then this process is what
    it was.

    environ, fds: what the service manager gave us, for the next one to find as we did.
    """
    with ExitStack() as undo:
        memory = os.memfd_create("gateway-upgrade", 0)
        undo.callback(os.close, memory)
        for fd in (*_descriptors(legacy), *fds):
            if not os.get_inheritable(fd):
                undo.callback(os.set_inheritable, fd, False)
                os.set_inheritable(fd, True)
        for listening in legacy.listening.values():
            undo.callback(listening.set_inheritable, False)
            listening.set_inheritable(True)
        rest = memoryview(_state(legacy))
        while rest:
            rest = rest[os.write(memory, rest) :]
        environ = {**os.environ, **environ, _VARIABLE: str(memory)}
        # Between exec and the new program's handlers a signal would have its default effect, which is the end.
        undo.callback(signal.pthread_sigmask, signal.SIG_UNBLOCK, SIGNALS)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        wakeup = signal.set_wakeup_fd(-1)
        undo.callback(signal.set_wakeup_fd, wakeup, warn_on_full_buffer=False)
        os.execve(sys.executable, [sys.executable, "-m", "gateway", "run", "-c", config], environ)


def _descriptors(legacy: Legacy) -> list[int]:
    """What is handed on, but for the sockets of listeners."""
    ledger = [legacy.ledger.fd] if legacy.ledger is not None else []
    channels = [child.channel.fileno() for child in legacy.children]
    return [legacy.board.fd, *ledger, *(sock.fileno() for sock in legacy.control), *channels]


def _state(legacy: Legacy) -> bytes:
    """All that the next program is told, for nobody else to read: there are secrets in it."""
    children = []
    for child in legacy.children:
        row = {
            name: getattr(child, name)
            for name in ("slot", "generation", "seat", "pid", "born", "serving", "kill_at", "wear", "names")
        }
        row |= {"role": child.role.value, "state": child.state.value, "holds": sorted(child.holds)}
        children.append(row | {"channel": child.channel.fileno()})
    data, marks = kept(legacy.config) if legacy.config is not None else (None, [])
    state = {
        "format": _FORMAT,
        "generation": legacy.generation,
        "wanted": legacy.wanted,
        "config": data,
        "marks": marks,
        "board": legacy.board.fd,
        "ledger": legacy.ledger.fd if legacy.ledger is not None else None,
        "control": [sock.fileno() for sock in legacy.control],
        "plan": legacy.plan.dump(),
        "listening": [listening.fds() for listening in legacy.listening.values()],
        "children": children,
        "found": {name: written(found) for name, found in legacy.findings.found.items()},
        "documents": legacy.documents.dump(),
        "placed": legacy.plan.endpoints(),  # for a program that knows this from here only
    }
    return msgspec.json.encode(state, enc_hook=_plain)


def _plain(value: object) -> str:
    """A string of a kind of its own (a document's URL with a secret in it) as what it is. Raises TypeError."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} can't be handed on")


def is_rehearsal(environ: Mapping[str, str]) -> bool:
    """Whether a running gateway asks whether this program could take over here and now."""
    return _REHEARSAL in environ


def unlike_the_running_one(environ: Mapping[str, str]) -> str:
    """Why this program can't take over from the one that rehearses it; "" when it can, or when nobody does."""
    if environ.get(_REHEARSAL, str(_FORMAT)) == str(_FORMAT):
        return ""
    return "this version cannot take over from the running one: stop it and start this one instead"


def inherit(kinds: Kinds) -> Legacy | None:
    """What the master before us left, None when we are the first or can't read it. kinds: of layers that we know."""
    fd = os.environ.pop(_VARIABLE, None)
    if fd is None:
        return None
    with os.fdopen(int(fd), "rb") as memory:
        memory.seek(0)
        state: dict[str, Any] = msgspec.json.decode(memory.read())
    if state["format"] != _FORMAT:
        return None
    os.set_inheritable(state["board"], False)
    board = Scoreboard.adopt(state["board"])
    plan = Plan.load(state["plan"])
    if board is None:  # another layout: counters begin anew
        board, plan = Scoreboard.create(), Plan()
    ledger = None
    if state.get("ledger") is not None:
        os.set_inheritable(state["ledger"], False)
        ledger = Ledger.adopt(state["ledger"])
    children = []
    for row in state["children"]:
        channel = socket.socket(fileno=row.pop("channel"))
        channel.set_inheritable(False)
        channel.setblocking(False)
        row |= {"role": Role(row["role"]), "state": State(row["state"]), "holds": set(row["holds"])}
        children.append(Child(channel=channel, cells=board.seat(row["seat"]), **row))
    listening = [Listening.adopt(one) for one in state["listening"]]
    control = [socket.socket(fileno=fd) for fd in state["control"]]
    for sock in control:
        sock.set_inheritable(False)
        sock.setblocking(False)
    return Legacy(
        generation=state["generation"],
        wanted=state["wanted"],
        board=board,
        plan=plan,
        control=control,
        config=restored(state.get("config"), kinds, state.get("marks", ())),
        listening={one.key: one for one in listening},
        children=children,
        findings=_found(state.get("found", {})),
        documents=Documents.load(state.get("documents", ())),
        ledger=ledger,
    )


def _found(rows: dict[str, Any]) -> Findings:
    """What discovery had found. What we don't understand is looked up anew."""
    findings = Findings()
    for name, found in rows.items():
        try:
            findings.found[name] = read(found)
        except ValueError:
            continue
    return findings


def logs_opened(config: Config) -> tuple[Config, Files]:
    """The logs of the generation that an upgrade has found serving. Its own workers have theirs open; if we can't open
    them any more, ours go to the standard streams until a reload says otherwise."""
    try:
        return config, Files(config.log)
    except StartError:
        plain = Log()
        return config.model_copy(update={"log": plain}), Files(plain)


def adopted(legacy: Legacy, config: Config, files: Files) -> Generation:
    """The generation that an upgrade has found serving. config: what it runs by; files: the logs that its workers are
    taken to write to."""
    generation = Generation(legacy.generation, config, files, wanted=legacy.wanted, findings=legacy.findings)
    generation.documents = legacy.documents
    named = {key(one.listen, one.name, one.DATAGRAMS): one.name for one in config.listeners}
    for known_by, listening in legacy.listening.items():
        if config.admin is not None and known_by == key(config.admin.listen, ADMIN):
            generation.admin = listening
        else:
            generation.listening[named.get(known_by, known_by)] = listening
    for child in legacy.children:
        child.files = files
    return generation
