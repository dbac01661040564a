"""From one generation to the next: n+1 is built completely, and only when all of it is ready does it take n's place.

Any failure on the way takes n+1 down and leaves n alone. Whoever asked for the reload is told how it ended; who asks
while one is under way gets the next one. Children of neither generation are the master's to drain, not ours.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from gateway.child import ids
from gateway.config.diff import changes
from gateway.config.model import Config
from gateway.config.problems import ConfigError, ConfigErrors
from gateway.errors import GatewayError, StartError
from gateway.log import Files, set_up
from gateway.master.control import Reply
from gateway.master.discovered import Discovered
from gateway.master.endpoints import Endpoints
from gateway.master.fetched import Fetched
from gateway.master.generation import Generation, announce, open_sockets, wanted_workers
from gateway.master.queues import let_go
from gateway.master.roster import Roster
from gateway.master.sockets import Listening
from gateway.master.systemd import Notifier
from gateway.scoreboard import Cells, Role, State, Word

log = logging.getLogger("gateway")


class Reload:
    """current: the generation that serves; starting: the one that comes up. None while there is no such.

    The first generation of all comes up in the same way, but nothing can go on when it fails.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[], tuple[Config, list[ConfigError]]],
        check: Callable[[Config], None],
        header: Cells,
        opened: dict[str, Listening],
        inherited: Mapping[str, Sequence[int]],
        children: Roster,
        discovered: Discovered,
        fetched: Fetched,
        endpoints: Endpoints,
        notifier: Notifier,
        give_up: Callable[[str], None],
    ) -> None:
        """path: of the configuration; load: reads it, with warnings; check: builds everything it asks for and raises
        GatewayError. header: of the scoreboard. opened: by key, the sockets the master has open; inherited: those of
        systemd, by name. give_up: called with the reason when the first generation fails."""
        self._path = path
        self._load = load
        self._check = check
        self._header = header
        self._opened = opened
        self._inherited = inherited
        self._children = children
        self._discovered = discovered
        self._fetched = fetched
        self._endpoints = endpoints
        self._notifier = notifier
        self._give_up = give_up
        self.current: Generation | None = None
        self.starting: Generation | None = None
        self._starting_until = 0.0
        self._new_sockets: list[Listening] = []
        self._is_adopted = False  # what serves is of the program before an upgrade, and no reload has ended since
        self._waiting: list[Reply] = []  # who waits for the outcome of the one under way
        self._outcome: dict[str, Any] | None = None  # of one that is over, and of which nobody was told yet
        self._asked_meanwhile: list[Reply] | None = None  # who waits for that of the next one; None: nobody wants one

    # Asking for it.

    def ask(self, replies: list[Reply]) -> None:
        """Read the configuration and begin; all of replies get the outcome. Not while another one is under way."""
        self._waiting = replies
        self._header[Word.RELOADS] += 1
        self._notifier.reloading()
        current = self.current
        files = None
        try:
            config, warnings = self._load()
            warn(warnings)
            ids(config.process)
            self._stays(config)
            self._check(config)
            files = current.files if current and current.config.log == config.log else Files(config.log)
            self.begin(config, files)
        except (GatewayError, ConfigErrors) as error:
            if files is not None and (current is None or files is not current.files):
                files.close()
            self._refuse(str(error))
        except Exception as error:  # a mistake of ours; but whoever waits for the outcome gets one
            log.exception("the master made a mistake; it goes on")
            if self.starting is None:
                self._refuse(f"{type(error).__name__}: {error}")

    def ask_later(self, replies: list[Reply]) -> None:
        """One more is wanted as soon as there may be one."""
        self._asked_meanwhile = (self._asked_meanwhile or []) + replies

    def asked_meanwhile(self) -> list[Reply] | None:
        """Who wanted one more, which is now the caller's to see to; None when nobody did."""
        replies, self._asked_meanwhile = self._asked_meanwhile, None
        return replies

    def _stays(self, config: Config) -> None:
        """What says that this gateway is ours can't move while people look for it. Raises StartError."""
        current = self.current
        if current is None:
            return
        for name in ("control", "pid_file"):
            before, now = getattr(current.config.process, name), getattr(config.process, name)
            if before != now:
                raise StartError(f"process.{name} cannot change in a reload (it is {before}): stop and start instead")

    # From its beginning to its end.

    def adopt(self, generation: Generation) -> None:
        """After an upgrade: it serves already, and the next one takes its place as in any reload."""
        self.current = generation
        self._is_adopted = True

    @property
    def is_upgrade(self) -> bool:
        """Whether the generation that comes up takes the place of an adopted one."""
        return self._is_adopted and self.starting is not None

    def begin(self, config: Config, files: Files) -> None:
        """Start the next generation. Raises GatewayError, and then nothing of it is left."""
        number = (self.current.number if self.current else 0) + 1
        generation = Generation(number, config, files, wanted=wanted_workers(config))
        self._discovered.check(config)
        self._fetched.begin(self.current, generation)
        self._new_sockets = open_sockets(generation, self._opened, self._inherited)
        self._discovered.begin(self.current, generation)
        self.starting = generation
        self._starting_until = time.monotonic() + config.process.boot_timeout
        self.bring_up()

    def bring_up(self) -> None:
        """Bring up every child of the starting generation; promote it when all are ready."""
        generation = self.starting
        if generation is None:
            return
        there = {(child.role, child.slot): child for child in self._children.of(generation)}
        wanted = [(Role.WORKER, slot) for slot in range(generation.wanted)]
        if generation.is_observed:
            wanted.append((Role.OBSERVER, 0))
        for place in wanted:
            if place not in there:
                try:
                    self._children.spawn(*place, generation)
                except (GatewayError, OSError) as error:
                    self.abort(f"cannot start a worker: {error}")
                    return
        is_ready = all(place in there and there[place].state is State.READY for place in wanted)
        if is_ready and not self._discovered.owes(generation) and not self._fetched.owes(generation):
            self._promote(generation)

    def abort_when_late(self) -> None:
        """The starting generation gets `boot_timeout` and no more."""
        starting = self.starting
        if starting is not None and time.monotonic() > self._starting_until:
            late = [child.name for child in self._children.of(starting) if child.state is State.BOOTING]
            timeout = starting.config.process.boot_timeout
            self.abort(f"not ready within {timeout:g} s: {', '.join(late) or 'no worker came up'}")

    def abort(self, reason: str) -> None:
        """Take generation n+1 down."""
        failed, self.starting = self.starting, None
        if failed is not None:
            if self.current is not None and failed.files is not self.current.files:
                failed.files.close()
            for child in self._children.of(failed):
                if child.state != State.GONE:
                    child.doomed = child.doomed or "boot"
                    child.holds.clear()
                    child.kill(signal.SIGKILL)
        for listening in self._new_sockets:
            self._opened.pop(listening.key, None)
            listening.close()
        self._new_sockets = []
        if self.current is None:
            self._give_up(reason)
        else:
            self._refuse(reason)

    def let_be(self) -> None:
        """The gateway stops: nobody takes over any more. The children of both generations are told by the master."""
        self.starting = None

    def _promote(self, generation: Generation) -> None:
        """All of n+1 is ready: it takes the connections from here."""
        old, self.current = self.current, generation
        self.starting = None
        self._new_sockets = []
        set_up(generation.config.log, generation.files)
        for listener in generation.config.listeners:
            listening = generation.listening[listener.name]
            listening.set_backlog(listener.backlog)
            listening.admit()
        for known_by in self._opened.keys() - generation.keys():
            self._opened[known_by].refuse()
        for child in self._children.of(generation):
            let_go(child, generation)
        header = self._header
        header[Word.GENERATION] = generation.number
        header[Word.WANTED] = generation.wanted
        header[Word.RELOAD_OK] = 1
        header[Word.RELOAD_TIME] = int(time.time())
        changed: list[str] = []
        if old is None or self._is_adopted:
            self._is_adopted = False
            announce(generation)
        else:
            changed = changes(old.config, generation.config)
            log.info("generation %d serves; %s", generation.number, "; ".join(changed) or "nothing changed")
        if old is not None and old.files is not generation.files:
            old.files.close()
        self._endpoints.bring_back(generation)
        setproctitle(f"gateway: master [{self._path}] generation {generation.number}")
        self._notifier.ready(f"generation {generation.number}, {generation.wanted} workers")
        self._outcome = {"ok": True, "generation": generation.number, "changes": changed}

    def report(self) -> None:
        """The old generation has been told to leave: whoever waited may count on the new one."""
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            replies, self._waiting = self._waiting, []
            for reply in replies:
                reply(outcome)

    def _refuse(self, reason: str) -> None:
        """It has failed: the old generation goes on, and everybody is told why."""
        header = self._header
        header[Word.RELOADS_FAILED] += 1
        header[Word.RELOAD_OK] = 0
        header[Word.RELOAD_TIME] = int(time.time())
        self._is_adopted = False
        generation = self.current.number if self.current else 0
        log.error("reload refused, generation %d goes on: %s", generation, reason)
        self._notifier.ready(f"generation {generation}; the last reload was refused: {reason}")
        replies, self._waiting = self._waiting, []
        for reply in replies:
            reply({"ok": False, "error": reason, "generation": generation})


def warn(warnings: list[ConfigError]) -> None:
    """Log what of a configuration is right and can't be meant."""
    for warning in warnings:
        log.warning("%s", warning)
