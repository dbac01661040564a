"""The master: binds, forks, supervises, reloads. It never touches a request.

One loop, as in nginx: take up what happened, bury the dead, look after the living, and then compare what is wanted with
what there is and act on the difference (`_converge`). Nothing else starts or ends a child, so every path (a crash, a
reload, a scale, a stop) is the same path with another idea of what is wanted.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from gateway.child import EXIT_BOOT, hear, ids, tell
from gateway.config import Config, ConfigError, ConfigErrors, load_and_lint
from gateway.config.diff import changes
from gateway.config.fields import MOST_WORKERS
from gateway.config.layers import Kinds
from gateway.errors import GatewayError, StartError
from gateway.log import Files, set_up
from gateway.master import limits, queues, upgrade
from gateway.master.children import Child
from gateway.master.control import Control, Reply
from gateway.master.deaths import Deaths
from gateway.master.discovered import Discovered
from gateway.master.events import Events, Handler, in_the_foreground
from gateway.master.generation import ADMIN, Generation, announce, key, open_sockets, wanted_workers
from gateway.master.nursery import Nursery, Run
from gateway.master.pidfile import PidFile
from gateway.master.sockets import Listening
from gateway.master.status import status
from gateway.master.systemd import Notifier, forget, listen_fds
from gateway.master.watch import Watch, is_hung
from gateway.metrics.endpoints import drain, endpoints, unprobed
from gateway.metrics.plan import Plan
from gateway.scoreboard import Fact, Role, Scoreboard, State, Word
from gateway.truth import Truth

log = logging.getLogger("gateway")

_TICK = 1.0  # seconds between two looks at heartbeats when nothing happens
_SETTLING = 0.02  # the same while something is under way


class Master:
    """run: by role, what a child does. check: builds everything a configuration asks for and raises GatewayError.
    kinds: of layers that a configuration may have."""

    def __init__(self, path: Path, run: dict[Role, Run], check: Callable[[Config], None], kinds: Kinds) -> None:
        self._path = path
        self._check = check
        self._kinds = kinds
        self._notifier = Notifier(os.environ)
        self._inherited_fds = listen_fds(os.environ, os.getpid())
        self._managed = forget(os.environ)
        legacy = upgrade.inherit(kinds)
        self._board = legacy.board if legacy else Scoreboard.create()
        self._plan = legacy.plan if legacy else Plan()
        self._children: list[Child] = legacy.children if legacy else []
        self._open: dict[str, Listening] = legacy.listening if legacy else {}
        self._legacy = legacy
        self._current: Generation | None = None
        self._starting: Generation | None = None
        self._starting_until = 0.0
        self._new_sockets: list[Listening] = []
        self._waiting: list[Reply] = []  # who waits for the outcome of the reload under way
        self._next_reload: list[Reply] | None = None  # one more was asked for meanwhile
        self._discovered = Discovered(self._board, self._plan)
        self._deaths = Deaths()
        self._watch = Watch(self._board.header)
        self._stopping = False
        self._paused = False
        self._exit = 0
        self._rehearsal: upgrade.Rehearsal | None = None
        self._next_upgrade = False  # asked for while a reload was under way
        self._next_watchdog = 0.0
        taken = {child.seat for child in self._children} | {0}
        self._nursery = Nursery(self._board, self._plan, run, self._close_in_child, taken)
        self._events: Events
        self._control: Control
        self._pid_file: PidFile | None = None

    # The life of the master.

    def run(self) -> int:
        """Serve until told to stop. Returns the exit status; raises GatewayError when it can't even begin."""
        self._nofile = limits.raise_nofile()
        legacy = self._legacy
        if legacy is None:
            config, warnings = load_and_lint(self._path, kinds=self._kinds)
            ids(config.process)
            files = Files(config.log)
            set_up(config.log, files)
            _warn(warnings)
            self._check(config)
        else:
            config, files = upgrade.logs_opened(legacy.config or load_and_lint(self._path, kinds=self._kinds)[0])
            set_up(config.log, files)
        self._events = Events()
        self._claim(config)
        try:
            if legacy is None:
                self._begin(config, files)
            else:
                self._take_over(legacy, config, files)
                self._reload([])
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
        self._control = Control(config.process.control, self._events, self._answer, inherited)
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

    def _take_over(self, legacy: upgrade.Legacy, config: Config, files: Files) -> None:
        """After an upgrade: the workers of the program before us are the generation that serves. What comes next is a
        reload like any other, so whatever is wrong with the new configuration leaves them alone."""
        self._current = Generation(legacy.generation, config, files, wanted=legacy.wanted, findings=legacy.findings)
        named = {key(listener.listen, listener.name): listener.name for listener in config.listeners}
        for known_by, listening in self._open.items():
            if config.admin is not None and known_by == key(config.admin.listen, ADMIN):
                self._current.admin = listening
            else:
                self._current.listening[named.get(known_by, known_by)] = listening
        for child in self._children:
            child.files = files
            self._events.watch(child.channel, self._hearing(child))
        log.info("upgraded in place; generation %d goes on until its successor is ready", legacy.generation)

    def _finished(self) -> bool:
        return self._stopping and not self._children

    def _patience(self) -> float:
        settling = self._starting or self._stopping or any(child.state != State.READY for child in self._children)
        if settling or self._discovered.owes() or (self._current and len(self._children) < self._current.wanted):
            return _SETTLING * 5
        return min(_TICK, self._current.config.process.heartbeat_timeout / 4 if self._current else _TICK)

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
                self._reload([])
            case signal.SIGTERM | signal.SIGQUIT | signal.SIGINT:
                self._stop()
            case signal.SIGUSR1:
                self._reopen()
            case signal.SIGUSR2:
                self._rehearse()
            case signal.SIGTTIN:
                self._scale(self._wanted() + 1)
            case signal.SIGTTOU:
                self._scale(max(1, self._wanted() - 1))
            case signal.SIGWINCH if in_the_foreground():
                pass  # the window of our terminal has another size, and that is all
            case signal.SIGWINCH:
                log.info("stopping the workers; the sockets stay open until a reload")
                self._paused = True

    def _answer(self, question: dict[str, Any], reply: Reply) -> None:
        """A question from the control socket."""
        match question.get("do"):
            case "status":
                reply(self._status())
            case "reload":
                self._reload([reply])
            case "stop":
                self._stop()
                reply({"ok": True})
            case "scale" if type(question.get("workers")) is int and 1 <= question["workers"] <= MOST_WORKERS:
                try:
                    self._scale(question["workers"])
                except GatewayError as error:
                    reply({"ok": False, "error": str(error)})
                else:
                    reply({"ok": True, "workers": question["workers"]})
            case "reopen":
                reply(self._reopen())
            case "endpoints":
                reply({"ok": True, "endpoints": self._endpoints(), "discovery": self._discovery()})
            case "drain" if type(question.get("drained")) is bool:
                reply(
                    self._drain_endpoint(
                        str(question.get("upstream")), str(question.get("endpoint")), question["drained"]
                    )
                )
            case _:
                reply({"ok": False, "error": "not a question this gateway knows"})

    def _hearing(self, child: Child) -> Handler:
        def heard() -> None:
            while True:
                try:
                    message, _ = hear(child.channel)
                except BlockingIOError:
                    return
                if message is None:
                    self._events.unwatch(child.channel)
                    return
                match message["say"]:
                    case "ready":
                        child.happened("ready")
                    case "failed":
                        child.why = message["why"]
                    case "left":
                        child.holds.clear()
                    case "endpoints":
                        for generation in (self._starting, self._current):
                            if generation is not None and generation.number == child.generation:
                                self._discovered.heard(generation, self._children, message)

        return heard

    # Reload.

    def _reload(self, replies: list[Reply]) -> None:
        """Build generation n+1 completely; only when all of it is ready does n drain. Any failure changes nothing."""
        if self._stopping:
            for reply in replies:
                reply({"ok": False, "error": "the gateway is stopping"})
            return
        if self._starting is not None or self._rehearsal is not None:
            self._next_reload = (self._next_reload or []) + replies
            return
        self._waiting = replies
        self._board.header[Word.RELOADS] += 1
        self._notifier.reloading()
        current = self._current
        files = None
        try:
            config, warnings = load_and_lint(self._path, kinds=self._kinds)
            _warn(warnings)
            ids(config.process)
            self._stays(config)
            self._check(config)
            files = current.files if current and current.config.log == config.log else Files(config.log)
            self._begin(config, files)
        except (GatewayError, ConfigErrors) as error:
            if files is not None and (current is None or files is not current.files):
                files.close()
            self._refuse(str(error))
        except Exception as error:  # a mistake of ours; but whoever waits for the outcome gets one
            log.exception("the master made a mistake; it goes on")
            if self._starting is None:
                self._refuse(f"{type(error).__name__}: {error}")

    def _stays(self, config: Config) -> None:
        """What says that this gateway is ours can't move while people look for it. Raises StartError."""
        current = self._current
        if current is None:
            return
        for name in ("control", "pid_file"):
            before, now = getattr(current.config.process, name), getattr(config.process, name)
            if before != now:
                raise StartError(f"process.{name} cannot change in a reload (it is {before}): stop and start instead")

    def _begin(self, config: Config, files: Files) -> None:
        """Start the next generation. Raises GatewayError, and then nothing of it is left."""
        number = (self._current.number if self._current else 0) + 1
        generation = Generation(number, config, files, wanted=wanted_workers(config))
        self._discovered.check(config)
        self._new_sockets = open_sockets(generation, self._open, self._inherited_fds)
        self._discovered.begin(self._current, generation)
        self._starting = generation
        self._starting_until = time.monotonic() + config.process.boot_timeout
        self._converge()

    def _refuse(self, reason: str) -> None:
        """A reload (or the start) has failed: the old generation goes on, and everybody is told why."""
        header = self._board.header
        header[Word.RELOADS_FAILED] += 1
        header[Word.RELOAD_OK] = 0
        header[Word.RELOAD_TIME] = int(time.time())
        self._legacy = None
        generation = self._current.number if self._current else 0
        log.error("reload refused, generation %d goes on: %s", generation, reason)
        self._notifier.ready(f"generation {generation}; the last reload was refused: {reason}")
        replies, self._waiting = self._waiting, []
        for reply in replies:
            reply({"ok": False, "error": reason, "generation": generation})

    def _abort_starting(self, reason: str) -> None:
        """Take generation n+1 down."""
        failed, self._starting = self._starting, None
        if failed is not None and self._current is not None and failed.files is not self._current.files:
            failed.files.close()
        for child in self._children:
            if failed is not None and child.generation == failed.number and child.state != State.GONE:
                child.doomed = child.doomed or "boot"
                child.holds.clear()
                child.kill(signal.SIGKILL)
        for listening in self._new_sockets:
            self._open.pop(listening.key, None)
            listening.close()
        self._new_sockets = []
        if self._current is None:
            self._stopping = True
            self._exit = 1
            log.error("cannot start: %s", reason)
        else:
            self._refuse(reason)

    def _promote(self, generation: Generation) -> None:
        """All of n+1 is ready: it takes the connections from here, n drains."""
        old, self._current = self._current, generation
        self._starting = None
        self._new_sockets = []
        self._paused = False
        self._deaths.forget()
        set_up(generation.config.log, generation.files)
        for listener in generation.config.listeners:
            listening = generation.listening[listener.name]
            listening.set_backlog(listener.backlog)
            listening.admit()
        for known_by in self._open.keys() - generation.keys():
            self._open[known_by].refuse()
        for child in self._of(generation):
            self._let_go(child, generation)
        header = self._board.header
        header[Word.GENERATION] = generation.number
        header[Word.WANTED] = generation.wanted
        header[Word.RELOAD_OK] = 1
        header[Word.RELOAD_TIME] = int(time.time())
        changed: list[str] = []
        if old is None or self._legacy is not None:
            self._legacy = None
            announce(generation, self._nofile)
        else:
            changed = changes(old.config, generation.config)
            log.info("generation %d serves; %s", generation.number, "; ".join(changed) or "nothing changed")
        if old is not None and old.files is not generation.files:
            old.files.close()
        self._bring_back()
        setproctitle(f"gateway: master [{self._path}] generation {generation.number}")
        self._notifier.ready(f"generation {generation.number}, {generation.wanted} workers")
        replies, self._waiting = self._waiting, []
        for reply in replies:
            reply({"ok": True, "generation": generation.number, "changes": changed})

    def _bring_back(self) -> None:
        """Endpoints that nobody probes any more don't stay down."""
        if self._current is not None:
            for upstream, endpoint in unprobed(Truth(self._board), self._plan, self._current.config):
                log.warning("%s: endpoint %s is probation, was down: it is probed no more", upstream, endpoint)

    def _let_go(self, child: Child, generation: Generation) -> None:
        """A child is ready: its slot listens, and it may accept."""
        if child.role is Role.OBSERVER:
            if generation.admin is not None:
                generation.admin.listen(child.slot)
        else:
            for listening in generation.listening.values():
                listening.listen(child.slot)
        child.go()

    # Other orders.

    def _stop(self) -> None:
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
        if self._starting is not None:
            self._starting = None
        if self._current is not None:
            for listening in self._current.listening.values():
                listening.refuse()
        for child in self._children:
            child.hurry()
            self._drain(child, stopping=True)

    def _reopen(self) -> dict[str, Any]:
        """New log files behind the same descriptors, in every process."""
        if self._current is None:
            return {"ok": False, "error": "the gateway is not up yet"}
        files = self._current.files
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

    def _scale(self, workers: int) -> None:
        """Another number of workers until the next reload. Raises BindError when a new slot gets no socket."""
        current = self._current
        if current is None or self._stopping or workers > MOST_WORKERS or self._paused:
            return
        for listening in current.listening.values():
            for slot in range(workers):
                listening.socket(slot)
        log.info("scaling from %d to %d workers", current.wanted, workers)
        current.wanted = workers
        self._board.header[Word.WANTED] = workers

    def _rehearse(self) -> None:
        """USR2: let the installed program prove itself before it replaces this one."""
        if self._stopping or self._rehearsal is not None:
            return
        if self._starting is not None:
            self._next_upgrade = True
            return
        log.info("upgrade: the installed program reads the configuration")
        try:
            self._rehearsal = upgrade.Rehearsal(str(self._path))
        except OSError as error:
            log.error("upgrade refused, this program goes on: %s", error.strerror)

    def _rehearsed(self, code: int) -> None:
        rehearsal, self._rehearsal = self._rehearsal, None
        current = self._current
        if rehearsal is None:
            return
        said = rehearsal.ended(code)
        if current is None or self._stopping:
            return
        if code != 0:
            log.error("upgrade refused, this program goes on: %s", said or f"the installed one ended with {code}")
            return
        replies, self._next_reload = self._next_reload or [], None
        for reply in replies:
            reply({"ok": False, "error": "an upgrade was under way, which reloads as well; ask again in a moment"})
        legacy = upgrade.Legacy(
            current.number,
            current.wanted,
            self._board,
            self._plan,
            self._control.sockets,
            current.config,
            self._open,
            self._children,
            current.findings,
        )
        passed = [fd for fds in self._inherited_fds.values() for fd in fds]
        try:
            upgrade.become(str(self._path), legacy, self._managed, passed)
        except OSError as error:
            log.error("upgrade refused, this program goes on: %s", error.strerror)

    # Looking after children.

    def _wanted(self) -> int:
        return self._current.wanted if self._current is not None and not self._paused else 0

    def _of(self, generation: Generation) -> list[Child]:
        return [child for child in self._children if child.generation == generation.number]

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
            if self._rehearsal is not None and pid == self._rehearsal.pid:
                self._rehearsed(code)
                continue
            child = next((child for child in self._children if child.pid == pid), None)
            if child is not None:
                self._bury(child, code)

    def _bury(self, child: Child, code: int) -> None:
        self._hearing(child)()  # its last words
        was = child.state
        child.happened("exit")
        child.holds.clear()
        self._children.remove(child)
        self._events.unwatch(child.channel)
        child.channel.close()
        self._nursery.buried(child)
        if child.role is Role.OBSERVER:
            self._bring_back()  # its last probe may have failed after a generation without probes was promoted
        if was is State.DRAINING or self._stopping or child.doomed == "boot":
            if code != 0 and not child.doomed:
                log.warning("%s ended with %s while it drained", child.name, _ending(code))
            return
        starting = self._starting
        reason = child.why or f"it ended with {_ending(code)}"
        if starting is not None and child.generation == starting.number:
            self._abort_starting(f"{child.name.partition(' [')[0]} did not get ready: {reason}")
            return
        header = self._board.header
        log.error("%s is gone: %s", child.name, child.doomed or reason)
        if code == EXIT_BOOT and was is State.BOOTING:
            header[Word.RESTARTS_BOOT] += 1
            self._deaths.broken.add((child.role, child.slot))
            log.error("%s can't boot: not tried again before the next reload", child.name)
            return
        header[Word.RESTARTS_HANG if child.doomed == "hang" else Word.RESTARTS_CRASH] += 1
        self._deaths.died((child.role, child.slot), child.age)

    def _look_after(self) -> None:
        """Deadlines, heartbeats, wear; and the watchdog of systemd, fed only while a worker beats."""
        now = time.monotonic()
        current = self._current
        if self._starting is not None and now > self._starting_until:
            late = [child.name for child in self._of(self._starting) if child.state is State.BOOTING]
            timeout = self._starting.config.process.boot_timeout
            self._abort_starting(f"not ready within {timeout:g} s: {', '.join(late) or 'no worker came up'}")
        self._watch.overdue(self._children)
        self._discovered.turn(current, self._starting, self._children)
        if current is None:
            return
        settings = current.config.process
        self._watch.heartbeats(self._children, settings, current.number)
        self._watch.wear(self._of(current), settings)
        interval = self._notifier.watchdog_interval
        if interval is not None and now >= self._next_watchdog:
            self._next_watchdog = now + interval / 2
            if self._paused or any(child.serving and not is_hung(child, settings) for child in self._children):
                self._notifier.watchdog()

    # Wanted and actual.

    def _converge(self) -> None:
        if self._stopping:
            for child in self._children:
                self._drain(child, stopping=True)
            admin = self._current.admin if self._current is not None else None
            queues.close_unheld(self._open, self._children, {admin.key} if admin is not None else set())
            return
        if self._starting is not None:
            self._raise(self._starting)
        if self._current is not None:
            self._keep(self._current)
            self._retire_old(self._current)
            self._close_sockets(self._current)
            queues.steer(self._current, self._of(self._current), self._current.config.process)
            places = {(Role.WORKER, slot) for slot in range(max(1, self._wanted()))}
            is_left = any(child.role is Role.WORKER for child in self._children)
            if self._deaths.broken >= places and not is_left and not self._starting:
                log.error("no worker can boot")
                self._stopping, self._exit = True, 1
        if self._starting is None and self._next_reload is not None:
            replies, self._next_reload = self._next_reload, None
            self._reload(replies)
        if self._starting is None and self._next_upgrade:
            self._next_upgrade = False
            self._rehearse()

    def _raise(self, generation: Generation) -> None:
        """Bring up every child of the starting generation; promote it when all are ready."""
        there = {(child.role, child.slot): child for child in self._of(generation)}
        wanted = [(Role.WORKER, slot) for slot in range(generation.wanted)]
        if generation.is_observed:
            wanted.append((Role.OBSERVER, 0))
        for role, slot in wanted:
            if (role, slot) not in there:
                self._spawn(role, slot, generation)
            if self._starting is not generation:
                return  # it could not be started, and nothing of it is left
        is_ready = all(key in there and there[key].state is State.READY for key in wanted)
        if is_ready and not self._discovered.owes(generation):
            self._promote(generation)

    def _keep(self, current: Generation) -> None:
        """One serving child in each wanted slot, and none elsewhere."""
        if current.is_observed and not self._paused:
            self._keep_one(current, Role.OBSERVER, 0)
        for slot in range(self._wanted()):
            self._keep_one(current, Role.WORKER, slot)
        for child in self._of(current):
            if child.role is Role.WORKER and child.slot >= self._wanted():
                self._drain(child)

    def _keep_one(self, current: Generation, role: Role, slot: int) -> None:
        here = [
            child
            for child in self._of(current)
            if child.role is role and child.slot == slot and child.state in (State.BOOTING, State.READY)
        ]
        fresh = [child for child in here if not child.retire]
        if (role, slot) in self._deaths.broken:
            return
        if not fresh and self._deaths.may_follow((role, slot)) and (here or not self._waits_for_upgrade()):
            self._spawn(role, slot, current)
        for child in fresh:
            if child.state is State.READY:
                if not child.serving:
                    self._let_go(child, current)
                for old in here:
                    if old.retire:
                        self._drain(old)

    def _waits_for_upgrade(self) -> bool:
        """While a generation adopted in an upgrade is about to be replaced, its dead are not replaced by newcomers."""
        return self._legacy is not None and self._starting is not None

    def _retire_old(self, current: Generation) -> None:
        starting = self._starting.number if self._starting is not None else current.number
        for child in self._children:
            if child.generation not in (current.number, starting):
                self._drain(child)

    def _drain(self, child: Child, *, stopping: bool = False) -> None:
        """Tell a child to leave; the queues that no other process will accept from it empties first."""
        current = self._current
        if child.state not in (State.BOOTING, State.READY):
            return
        if stopping:
            orphans = set(child.holds) if child.role is Role.WORKER else set()
        elif current is None or self._paused or child.role is Role.OBSERVER:
            orphans = set()
        else:
            orphans = queues.orphans(child, current, child.slot >= self._wanted())
        child.drain(current.config.process.drain_timeout if current is not None else 0.0, orphans, stopping)

    def _close_sockets(self, current: Generation) -> None:
        """Close what is neither wanted nor held: sockets of listeners that are gone, and of slots that are."""
        starting = self._starting
        queues.close_unheld(self._open, self._children, current.keys() | (starting.keys() if starting else set()))
        if not self._paused:
            wanted = max(current.wanted, starting.wanted if starting else 0, 1)
            queues.close_slots(self._open, self._children, wanted)

    def _spawn(self, role: Role, slot: int, generation: Generation) -> None:
        try:
            child = self._nursery.spawn(role, slot, generation, self._open.values(), self._children)
        except (GatewayError, OSError) as error:
            if generation is self._starting:
                self._abort_starting(f"cannot start a worker: {error}")
            else:
                log.error("cannot start a worker: %s", error)
                self._deaths.failed((role, slot))
            return
        self._children.append(child)
        self._events.watch(child.channel, self._hearing(child))

    def _endpoints(self) -> list[dict[str, Any]]:
        current = self._current
        return endpoints(Truth(self._board), self._plan, current.config, current.findings) if current else []

    def _discovery(self) -> list[dict[str, Any]]:
        return self._current.findings.rows(self._current.config) if self._current else []

    def _drain_endpoint(self, upstream: str, endpoint: str, drained: bool) -> dict[str, Any]:
        """Have an endpoint get nothing new, or something again."""
        if not any((row["upstream"], row["endpoint"]) == (upstream, endpoint) for row in self._endpoints()):
            return {"ok": False, "error": f"there is no endpoint {endpoint} of upstream {upstream}"}
        drain(Truth(self._board), self._plan, upstream, endpoint, drained)
        log.info("%s: endpoint %s is %s", upstream, endpoint, "drained" if drained else "no longer drained")
        return {"ok": True}

    def _status(self) -> dict[str, Any]:
        current = self._current
        return status(
            self._children,
            self._board.header,
            config=str(self._path),
            generation=current.number if current else 0,
            wanted=self._wanted(),
            listeners={name: one.bound for name, one in current.listening.items()} if current else {},
            admin=current.admin.bound if current and current.admin else None,
            discovery=self._discovery(),
            ok=True,
        )


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"


def _warn(warnings: list[ConfigError]) -> None:
    for warning in warnings:
        log.warning("%s", warning)
