"""The master: binds, forks, supervises, reloads. It never touches a request.

One loop, as in nginx: take up what happened, bury the dead, look after the living, and then compare what is wanted with
what there is and act on the difference (`_converge`). A generation that comes up is `reload.py`'s until it serves; but
for that nothing else starts or ends a child, so every path (a crash, a reload, a scale, a stop) is the same path with
another idea of what is wanted.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gateway.child import EXIT_BOOT, ids, tell
from gateway.config.layers import Kinds
from gateway.config.load import load_and_lint
from gateway.config.model import Config
from gateway.config.values import MOST_WORKERS
from gateway.errors import GatewayError, StartError
from gateway.ledger import Ledger
from gateway.log import Files, set_up
from gateway.master import limits, queues, upgrade
from gateway.master.children import Child
from gateway.master.control import Control, Reply
from gateway.master.discovered import Discovered
from gateway.master.endpoints import Endpoints
from gateway.master.events import Events, Handler, in_the_foreground
from gateway.master.fetched import Fetched
from gateway.master.generation import Generation
from gateway.master.nursery import Nursery, Run
from gateway.master.pidfile import PidFile
from gateway.master.questions import Questions
from gateway.master.reload import Reload, warn
from gateway.master.roster import Roster
from gateway.master.sockets import Listening
from gateway.master.systemd import Notifier, forget, listen_fds
from gateway.master.watch import Watch, is_hung
from gateway.metrics.plan import Plan
from gateway.scoreboard import Fact, Role, Scoreboard, State, Word

log = logging.getLogger("gateway")

_TICK = 1.0  # seconds between two looks at heartbeats when nothing happens
_SETTLING = 0.02  # the same while something is under way


class Master:
    """run: by role, what a child does. check: builds everything a configuration asks for and raises GatewayError.
    kinds: of layers that a configuration may have."""

    def __init__(self, path: Path, run: dict[Role, Run], check: Callable[[Config], None], kinds: Kinds) -> None:
        self._path = path
        self._check = check
        self._load = partial(load_and_lint, path, kinds=kinds)
        self._notifier = Notifier(os.environ)
        self._inherited_fds = listen_fds(os.environ, os.getpid())
        passed = [fd for fds in self._inherited_fds.values() for fd in fds]
        self._upgrade = upgrade.Upgrade(str(path), forget(os.environ), passed)
        legacy = upgrade.inherit(kinds)
        self._legacy = legacy
        self._board = legacy.board if legacy else Scoreboard.create()
        self._ledger = (legacy.ledger if legacy else None) or Ledger.create()
        self._plan = legacy.plan if legacy else Plan()
        self._open: dict[str, Listening] = legacy.listening if legacy else {}
        self._discovered = Discovered(self._board, self._plan)
        self._fetched = Fetched()
        self._endpoints = Endpoints(self._board, self._plan)
        self._watch = Watch(self._board.header)
        self._stopping = False
        self._exit = 0
        self._next_watchdog = 0.0
        taken = {child.seat for child in (legacy.children if legacy else ())} | {0}
        self._nursery = Nursery(self._board, self._plan, run, self._close_in_child, taken, self._ledger)
        self._events: Events
        self._children: Roster
        self._reload: Reload
        self._control: Control
        self._pid_file: PidFile | None = None

    # The life of the master.

    def run(self) -> int:
        """Serve until told to stop. Returns the exit status; raises GatewayError when it can't even begin."""
        limits.raise_nofile()
        legacy = self._legacy
        if legacy is None:
            config, warnings = self._load()
            ids(config.process)
            files = Files(config.log)
            set_up(config.log, files)
            warn(warnings)
            self._check(config)
        else:
            config, files = upgrade.logs_opened(legacy.config or self._load()[0])
            set_up(config.log, files)
        self._events = Events()
        self._children = Roster(self._nursery, self._events, self._open, self._told, legacy.children if legacy else [])
        self._reload = Reload(
            self._path,
            self._load,
            self._check,
            self._board.header,
            self._open,
            self._inherited_fds,
            self._children,
            self._discovered,
            self._fetched,
            self._endpoints,
            self._notifier,
            self._give_up,
        )
        self._claim(config)
        try:
            if legacy is None:
                self._reload.begin(config, files)
            else:
                # The workers of the program before us are the generation that serves. What comes next is a reload like
                # any other, so whatever is wrong with the new configuration leaves them alone.
                self._reload.adopt(upgrade.adopted(legacy, config, files))
                log.info("upgraded in place; generation %d goes on until its successor is ready", legacy.generation)
                self._reload.ask([])
            while not self._finished():
                self._turn()
        finally:
            self._end()
        return self._exit

    def _turn(self) -> None:
        """One turn of the loop. A mistake of ours in it must not end what the workers do: it is logged, and the next
        turn compares wanted with actual again."""
        try:
            for event in self._events.wait(self._patience()):
                self._take_up(event)
            self._reap()
            self._look_after()
            self._converge()
        except Exception:
            log.exception("the master made a mistake; it goes on")
            time.sleep(_SETTLING)

    def _take_up(self, event: signal.Signals | Handler) -> None:
        """One event. What goes wrong with it must not keep the master from those that came with it."""
        try:
            self._handle(event)
        except GatewayError as error:
            log.error("%s", error)
        except Exception:
            log.exception("the master made a mistake; it goes on")

    def _claim(self, config: Config) -> None:
        """The control socket and the pid file: they say that this gateway is ours."""
        inherited = self._legacy.control if self._legacy is not None else ()
        questions = Questions(self, self._path, self._board.header, self._plan, self._children, self._endpoints)
        self._control = Control(config.process.control, self._events, questions.answer, inherited)
        if config.process.pid_file is not None:
            self._pid_file = PidFile(Path(config.process.pid_file))
            try:
                self._pid_file.create()
            except GatewayError:
                self._control.close()
                raise
        header = self._board.header
        seat = self._board.seat(0)
        seat[Fact.ROLE], seat[Fact.PID], seat[Fact.STATE] = Role.MASTER, os.getpid(), State.READY
        header[Word.SEATS_USED] = max(1, header[Word.SEATS_USED])
        header[Word.STARTED] = header[Word.STARTED] or int(time.time())

    def _finished(self) -> bool:
        return self._stopping and not self._children

    def _patience(self) -> float:
        changing = self._reload.starting or self._stopping
        settling = changing or any(child.state != State.READY for child in self._children)
        owes = self._discovered.owes() or self._fetched.owes()
        if settling or owes or (self.current and len(self._children) < self.current.wanted):
            return _SETTLING * 5
        return min(_TICK, self.current.config.process.heartbeat_timeout / 4 if self.current else _TICK)

    def _end(self) -> None:
        for child in self._children:  # only after an error: nobody is left behind
            child.kill(signal.SIGKILL)
            try:
                os.waitpid(child.pid, 0)
            except ChildProcessError:
                pass
        for listening in self._open.values():
            listening.close()
        if self._pid_file is not None:
            self._pid_file.remove()
        self._control.close()

    def _give_up(self, reason: str) -> None:
        """There is no generation that could go on."""
        self._stopping, self._exit = True, 1
        log.error("cannot start: %s", reason)

    def _close_in_child(self) -> None:
        self._events.close_in_child()
        self._control.close_in_child()

    # What happens.

    def _handle(self, event: signal.Signals | Handler) -> None:
        if not isinstance(event, signal.Signals):
            event()
            return
        match event:
            case signal.SIGHUP:
                self.reload([])
            case signal.SIGTERM | signal.SIGQUIT | signal.SIGINT:
                self.stop()
            case signal.SIGUSR1:
                self.reopen()
            case signal.SIGUSR2:
                self._rehearse()
            case signal.SIGTTIN:
                self.scale(self.wanted + 1)
            case signal.SIGTTOU:
                self.scale(max(1, self.wanted - 1))
            case signal.SIGWINCH if in_the_foreground():
                pass  # the window of our terminal has another size, and that is all
            case signal.SIGWINCH:
                log.info("stopping the workers; the sockets stay open until a reload")
                if self.current is not None:
                    self.current.paused = True

    def _told(self, child: Child, message: dict[str, Any], fds: list[int]) -> None:
        """A child's word about what others are to know as well."""
        generations = (self._reload.starting, self.current)
        match message["say"]:
            case "endpoints":
                for generation in generations:
                    if generation is not None and generation.number == child.generation:
                        self._discovered.heard(generation, self._children, message)
            case "document":
                self._fetched.heard(child, generations, self._children, message, fds)
            case "refresh":
                self._fetched.asked(child, self._children, message)

    # Orders, from signals and from the control socket.

    @property
    def current(self) -> Generation | None:
        """The generation that serves."""
        return self._reload.current

    @property
    def wanted(self) -> int:
        """How many workers there should be now."""
        return self.current.wanted if self.current is not None and not self.current.paused else 0

    def reload(self, replies: list[Reply]) -> None:
        """Now, or when what is under way is over. All of replies get the outcome."""
        if self._stopping:
            for reply in replies:
                reply({"ok": False, "error": "the gateway is stopping"})
        elif self._reload.starting is not None or self._upgrade.pid is not None:
            self._reload.ask_later(replies)
        else:
            self._reload.ask(replies)

    def stop(self) -> None:
        """The first time: finish what is under way. The second time: end at once."""
        if self._stopping:
            log.warning("told to stop again: ending at once")
            for child in self._children:
                child.doomed = child.doomed or "stop"
                child.kill(signal.SIGKILL)
            return
        log.info("stopping")
        self._stopping = True
        self._notifier.stopping()
        self._reload.let_be()
        if self.current is not None:
            for listening in self.current.listening.values():
                listening.refuse()
        for child in self._children:
            child.hurry()
            self._drain(child, stopping=True)

    def reopen(self) -> dict[str, Any]:
        """New log files behind the same descriptors, in every process."""
        if self.current is None:
            return {"ok": False, "error": "the gateway is not up yet"}
        files = self.current.files
        try:
            fds = files.reopen()
        except StartError as error:
            log.error("logs not reopened: %s", error)
            return {"ok": False, "error": str(error)}
        for child in self._children:
            if child.files is files:  # one that drains may still write where a configuration before this one said
                tell(child.channel, {"do": "reopen"}, fds)
        log.info("log files reopened")
        return {"ok": True}

    def scale(self, workers: int) -> None:
        """Another number of workers until the next reload. Raises BindError when a new slot gets no socket."""
        current = self.current
        if current is None or self._stopping or workers > MOST_WORKERS or current.paused:
            return
        for listening in current.listening.values():
            for slot in range(workers):
                listening.socket(slot)
        log.info("scaling from %d to %d workers", current.wanted, workers)
        current.wanted = workers
        self._board.header[Word.WANTED] = workers

    def _rehearse(self) -> None:
        """USR2: let the installed program prove itself before it replaces this one."""
        if self._stopping or self._upgrade.pid is not None:
            return
        if self._reload.starting is not None:
            self._upgrade.is_wanted = True
            return
        self._upgrade.rehearse()

    def _rehearsed(self, code: int) -> None:
        refusal = self._upgrade.rehearsed(code)
        current = self.current
        if current is None or self._stopping:
            return
        if refusal:
            self._upgrade.refuse(refusal)
            return
        for reply in self._reload.asked_meanwhile() or ():
            reply({"ok": False, "error": "an upgrade was under way, which reloads as well; ask again in a moment"})
        self._upgrade.become(
            upgrade.Legacy(
                current.number,
                current.wanted,
                self._board,
                self._plan,
                self._control.sockets,
                current.config,
                self._open,
                list(self._children),
                current.findings,
                current.documents,
                self._ledger,
            )
        )

    # Looking after children.

    def _reap(self) -> None:
        """Bury whoever has ended: our children, the rehearsal, and as PID 1 also strangers."""
        while True:
            try:
                pid, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(raw)
            if pid == self._upgrade.pid:
                self._rehearsed(code)
                continue
            child = next((child for child in self._children if child.pid == pid), None)
            if child is not None:
                self._bury(child, code)

    def _bury(self, child: Child, code: int) -> None:
        was = self._children.bury(child)
        current, starting = self.current, self._reload.starting
        if child.role is Role.OBSERVER and current is not None:
            # Its last probe may have failed after a generation without probes was promoted.
            self._endpoints.bring_back(current)
        if was is State.DRAINING or self._stopping or child.doomed == "boot":
            if code != 0 and not child.doomed:
                log.warning("%s ended with %s while it drained", child.name, _ending(code))
            return
        reason = child.why or f"it ended with {_ending(code)}"
        if starting is not None and child.generation == starting.number:
            self._reload.abort(f"{child.name.partition(' [')[0]} did not get ready: {reason}")
            return
        header = self._board.header
        log.error("%s is gone: %s", child.name, child.doomed or reason)
        if code == EXIT_BOOT and was is State.BOOTING:
            header[Word.RESTARTS_BOOT] += 1
            if current is not None:
                current.deaths.broken.add((child.role, child.slot))
            log.error("%s can't boot: not tried again before the next reload", child.name)
            return
        header[Word.RESTARTS_HANG if child.doomed == "hang" else Word.RESTARTS_CRASH] += 1
        if current is not None:
            current.deaths.died((child.role, child.slot), child.age)

    def _look_after(self) -> None:
        """Deadlines, heartbeats, wear; and the watchdog of systemd, fed only while a worker beats."""
        now = time.monotonic()
        current = self.current
        self._reload.abort_when_late()
        self._watch.overdue(self._children)
        self._discovered.turn(current, self._reload.starting, self._children)
        self._fetched.turn(current, self._reload.starting, self._children)
        if current is None:
            return
        settings = current.config.process
        self._watch.heartbeats(self._children, settings, current.number)
        self._watch.wear(self._children.of(current), settings)
        interval = self._notifier.watchdog_interval
        if interval is not None and now >= self._next_watchdog:
            self._next_watchdog = now + interval / 2
            if current.paused or any(child.serving and not is_hung(child, settings) for child in self._children):
                self._notifier.watchdog()

    # Wanted and actual.

    def _converge(self) -> None:
        if self._stopping:
            for child in self._children:
                self._drain(child, stopping=True)
            admin = self.current.admin if self.current is not None else None
            queues.close_unheld(self._open, self._children, {admin.key} if admin is not None else set())
            return
        self._reload.bring_up()
        current = self.current
        if current is not None:
            self._keep(current)
            self._retire_old(current)
            self._reload.report()
            self._close_sockets(current)
            queues.steer(current, self._children.of(current), current.config.process)
            places = {(Role.WORKER, slot) for slot in range(max(1, self.wanted))}
            is_left = any(child.role is Role.WORKER for child in self._children)
            if current.deaths.broken >= places and not is_left and not self._reload.starting:
                log.error("no worker can boot")
                self._stopping, self._exit = True, 1
        if self._reload.starting is None:
            asked = self._reload.asked_meanwhile()
            if asked is not None:
                self.reload(asked)
        if self._reload.starting is None and self._upgrade.is_wanted:
            self._upgrade.is_wanted = False
            self._rehearse()

    def _keep(self, current: Generation) -> None:
        """One serving child in each wanted slot, and none elsewhere."""
        if current.is_observed and not current.paused:
            self._keep_one(current, Role.OBSERVER, 0)
        for slot in range(self.wanted):
            self._keep_one(current, Role.WORKER, slot)
        for child in self._children.of(current):
            if child.role is Role.WORKER and child.slot >= self.wanted:
                self._drain(child)

    def _keep_one(self, current: Generation, role: Role, slot: int) -> None:
        here = [
            child
            for child in self._children.of(current)
            if child.role is role and child.slot == slot and child.state in (State.BOOTING, State.READY)
        ]
        fresh = [child for child in here if not child.retire]
        if (role, slot) in current.deaths.broken:
            return
        # While an adopted generation is about to be replaced, its dead are not replaced by newcomers.
        if not fresh and current.deaths.may_follow((role, slot)) and (here or not self._reload.is_upgrade):
            self._spawn(role, slot, current)
        for child in fresh:
            if child.state is State.READY:
                if not child.serving:
                    queues.let_go(child, current)
                for old in here:
                    if old.retire:
                        self._drain(old)

    def _retire_old(self, current: Generation) -> None:
        starting = self._reload.starting or current
        for child in self._children:
            if child.generation not in (current.number, starting.number):
                self._drain(child)

    def _drain(self, child: Child, *, stopping: bool = False) -> None:
        """Tell a child to leave; the queues that no other process will accept from it empties first."""
        current = self.current
        if child.state not in (State.BOOTING, State.READY):
            return
        if stopping:
            orphans = set(child.holds) if child.role is Role.WORKER else set()
        elif current is None or current.paused or child.role is Role.OBSERVER:
            orphans = set()
        else:
            orphans = queues.orphans(child, current, child.slot >= self.wanted)
        child.drain(current.config.process.drain_timeout if current is not None else 0.0, orphans, stopping)

    def _close_sockets(self, current: Generation) -> None:
        """Close what is neither wanted nor held: sockets of listeners that are gone, and of slots that are."""
        starting = self._reload.starting
        queues.close_unheld(self._open, self._children, current.keys() | (starting.keys() if starting else set()))
        if not current.paused:
            wanted = max(current.wanted, starting.wanted if starting else 0, 1)
            queues.close_slots(self._open, self._children, wanted)

    def _spawn(self, role: Role, slot: int, current: Generation) -> None:
        try:
            self._children.spawn(role, slot, current)
        except (GatewayError, OSError) as error:
            log.error("cannot start a worker: %s", error)
            current.deaths.failed((role, slot))


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
