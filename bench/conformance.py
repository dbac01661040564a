"""The conformance suite of `tests/conformance`, played against the gateway, nginx and HAProxy, and put side by side.

Only what a clause demands of everybody is compared: cases marked `ours` are in none of the figures. Every proxy stands
in front of the same recording origin and is given each case in the same deliveries; it passes a case that it passes in
each of them.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.machine import commit, machine, today
from bench.peers import PEERS
from bench.peers.peer import Missing, program
from bench.process import StartFailed, free_port, started, tail
from bench.report import aligned
from bench.serving import ATTEMPTS, START_TIMEOUT
from tests.conformance.case import Case
from tests.conformance.cases import CASES
from tests.conformance.delivery import DELIVERIES, WHOLE, Delivery
from tests.conformance.playground import Playground, gateway_config
from tests.conformance.stage import Failed
from tests.support.gateway_process import Gateway
from tests.support.http import split

PROXIES = ("gateway", "nginx", "haproxy")
# Seconds for what must come: everything here is on one machine, and a proxy that fails a case must not take all day.
PATIENCE = 2.0

# What their documentation says for a transparent reverse proxy: HTTP/1.1 with kept connections to the origin, nothing
# buffered, upgrades passed, Host as it came, nothing of the origin's answer hidden; and Via, which neither adds by
# itself.
NGINX = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  map $http_upgrade $upgrade_option {{ default upgrade; "" ""; }}
  map $http_host $host_sent {{ default $http_host; "" $host; }}
  map $http_via $via_before {{ default "$http_via, "; "" ""; }}
  map $server_protocol $via_version {{ default "1.1"; "HTTP/1.0" "1.0"; }}
  upstream app {{
    server 127.0.0.1:{origin};
    keepalive 64;
  }}
  upstream dead {{ server 127.0.0.1:{closed}; }}
  server {{
    listen 127.0.0.1:{port} backlog=512;
    server_name localhost;
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_redirect off;
    proxy_pass_header Server;
    proxy_set_header Host $host_sent;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $upgrade_option;
    proxy_set_header Via "${{via_before}}${{via_version}} nginx";
    location / {{ proxy_pass http://app; }}
    location /-dead {{ proxy_pass http://dead; }}
    location /-hasty {{ proxy_pass http://app; proxy_read_timeout 500ms; }}
  }}
}}
"""
HAPROXY = """\
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  http-reuse always
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 60s
frontend web
  bind 127.0.0.1:{port} backlog 512
  http-request add-header Via "%[req.ver] haproxy"
  use_backend dead if {{ path_beg /-dead }}
  use_backend hasty if {{ path_beg /-hasty }}
  default_backend app
backend app
  server app 127.0.0.1:{origin}
backend dead
  retries 0
  server dead 127.0.0.1:{closed}
backend hasty
  timeout server 500ms
  server app 127.0.0.1:{origin}
"""


class Failure(msgspec.Struct, frozen=True):
    """What a proxy did not do. why: the demand that was missed, and all that was heard on both sides."""

    group: str
    case: str
    clause: str
    delivery: str
    why: str


class Comparison(msgspec.Struct, frozen=True):
    """All of one run; its fields are the JSON file's. groups: how many cases each has. failures: by proxy."""

    date: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    deliveries: list[str]
    groups: dict[str, int]
    cases: list[str]
    failures: dict[str, list[Failure]]
    notes: list[str]

    def passed(self, proxy: str, group: str | None = None) -> int:
        """How many cases a proxy passed, of a group or of all."""
        total = sum(self.groups.values()) if group is None else self.groups[group]
        return total - sum(group in (None, failure.group) for failure in self.failures[proxy])

    @property
    def gateway_is_ahead(self) -> bool:
        """Whether no other proxy passed as many cases as the gateway."""
        ours = self.passed("gateway") if "gateway" in self.failures else 0
        return all(self.passed(proxy) < ours for proxy in self.failures if proxy != "gateway")


@dataclass(frozen=True)
class Plan:
    """What to play."""

    proxies: Sequence[str] = PROXIES
    cases: Sequence[Case] = CASES
    deliveries: Sequence[Delivery] = DELIVERIES[:3]
    ours: bool = False  # also what only the gateway promises, against the gateway alone
    patience: float = PATIENCE


def conformance(plan: Plan, tell: Callable[[str], None]) -> Comparison:
    """Play every case against every proxy that is here."""
    notes: list[str] = []
    where, versions, failures = machine(), {}, {}
    cases = [case for case in plan.cases if not case.ours]
    for proxy in plan.proxies:
        try:
            versions[proxy] = PEERS[proxy].find()
        except Missing as why:
            notes.append(f"{proxy} is left out: {why}")
            continue
        played = [*plan.cases] if plan.ours and proxy == "gateway" else cases
        began = time.monotonic()
        with (
            tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder,
            Playground(plan.patience, strict=plan.ours) as ground,
            _STARTED[proxy](ground, Path(folder)) as ports,
        ):
            ground.ports = ports
            failures[proxy] = list(_failures(ground, played, plan.deliveries))
        tell(f"{proxy}: {len(played) - len(failures[proxy])} of {len(played)} in {time.monotonic() - began:.0f} s")
    counted = plan.cases if plan.ours else cases
    groups = dict.fromkeys(case.group for case in counted)
    return Comparison(
        date=today(),
        commit=commit(),
        machine=where,
        versions=versions,
        deliveries=[delivery.name for delivery in plan.deliveries],
        groups={group: sum(case.group == group for case in counted) for group in groups},
        cases=[repr(case) for case in counted],
        failures=failures,
        notes=notes,
    )


def _failures(ground: Playground, cases: Sequence[Case], deliveries: Sequence[Delivery]) -> Iterator[Failure]:
    for case in cases:
        for delivery in deliveries:
            if case.slow and delivery is not WHOLE:
                continue
            try:
                ground.play(case, delivery)
            except Failed as why:
                yield Failure(case.group, case.name, case.clause, delivery.name, str(why))
                break


# The three, each in front of the playground's origin. What is yielded are the ports of its listeners.


@contextlib.contextmanager
def _gateway(ground: Playground, folder: Path) -> Iterator[Mapping[str, int]]:
    gateway = Gateway(folder, gateway_config(ground.origin.port, ground.closed))
    try:
        listeners = gateway.up().status()["listeners"]
        yield {name: split(address)[1] for name, address in listeners.items()}
    finally:
        gateway.kill()


@contextlib.contextmanager
def _nginx(ground: Playground, folder: Path) -> Iterator[Mapping[str, int]]:
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    argv = (program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file))
    with _foreign(ground, argv, file, NGINX, folder=str(folder), user=user) as ports:
        yield ports


@contextlib.contextmanager
def _haproxy(ground: Playground, folder: Path) -> Iterator[Mapping[str, int]]:
    file = folder / "haproxy.cfg"
    with _foreign(ground, (program("haproxy"), "-db", "-f", str(file)), file, HAPROXY) as ports:
        yield ports


@contextlib.contextmanager
def _foreign(
    ground: Playground, argv: tuple[str, ...], file: Path, config: str, **more: str
) -> Iterator[Mapping[str, int]]:
    """Raises StartFailed when it doesn't answer."""
    log = file.with_name("output.log")
    for _ in range(ATTEMPTS):
        port = free_port()
        file.write_text(config.format(port=port, origin=ground.origin.port, closed=ground.closed, **more))
        with started(argv, log) as child:
            deadline = time.monotonic() + START_TIMEOUT
            while child.poll() is None and time.monotonic() < deadline:
                if ground.is_up(port):
                    yield {"web": port}
                    return
                time.sleep(0.02)
    raise StartFailed(f"it does not answer: {tail(log)}")


_STARTED = {"gateway": _gateway, "nginx": _nginx, "haproxy": _haproxy}


# As a person reads it.


def as_text(comparison: Comparison, every_case: bool = False, failures: bool = False) -> str:
    facts = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    parts = [
        f"{comparison.date}, commit {comparison.commit}; each case {', '.join(comparison.deliveries)}\n{facts}",
        aligned(_table(comparison)),
    ]
    if every_case:
        parts.append(aligned(_every_case(comparison)))
    if failures:
        parts += [
            f"{proxy}: {failure.group}/{failure.case} ({failure.clause}), {failure.delivery}\n{_indented(failure.why)}"
            for proxy, failed in comparison.failures.items()
            for failure in failed
        ]
    parts += [f"note: {note}" for note in comparison.notes]
    return "\n\n".join(parts)


def as_markdown(comparison: Comparison) -> str:
    """The table, and which cases each proxy failed."""
    facts = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    head, *rows = _table(comparison)
    lines = [
        f"# HTTP/1.1 conformance, {comparison.date}",
        "",
        f"Commit {comparison.commit}; {facts}. Each case {', '.join(comparison.deliveries)}.",
        "",
        "| " + " | ".join(head) + " |",
        "|---" + "|---:" * (len(head) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    for proxy, failed in comparison.failures.items():
        if failed:
            lines += ["", f"## Failed by {proxy}", ""]
            lines += [f"* {failure.group}: {failure.case} ({failure.clause})" for failure in failed]
    return "\n".join([*lines, *(f"\n{note}" for note in comparison.notes)]) + "\n"


def _table(comparison: Comparison) -> list[list[str]]:
    proxies = list(comparison.failures)
    rows = [
        [group, *(f"{comparison.passed(proxy, group)}/{total}" for proxy in proxies)]
        for group, total in comparison.groups.items()
    ]
    total = sum(comparison.groups.values())
    return [["", *proxies], *rows, ["total", *(f"{comparison.passed(proxy)}/{total}" for proxy in proxies)]]


def _every_case(comparison: Comparison) -> list[list[str]]:
    failed = {
        proxy: {f"{failure.group}/{failure.case}" for failure in failures}
        for proxy, failures in comparison.failures.items()
    }
    rows = [[case, *("-" if case in failed[proxy] else "ok" for proxy in failed)] for case in comparison.cases]
    return [["", *failed], *rows]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def save(comparison: Comparison, folder: Path) -> list[Path]:
    """Write both files and return their paths; a later run of the same day replaces them."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{comparison.date}-conformance"
    data, text = stem.with_suffix(".json"), stem.with_suffix(".md")
    data.write_bytes(msgspec.json.format(msgspec.json.encode(comparison)) + b"\n")
    text.write_text(as_markdown(comparison))
    return [data, text]
