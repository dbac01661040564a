"""`gateway demo`: two small applications, a gateway in front of them, and what to try.

Everything is real: the applications answer on loopback ports of their own, the gateway runs from a configuration file
that one may look at, with real workers. All of it is gone after Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gateway.errors import StartError
from gateway.master.control import ControlError, ask

_PATIENCE = 15.0  # seconds for everything to be up

_CONFIG = """\
# Written by `gateway demo`. Change a weight and type `gateway reload -c {path}`.

[process]
workers = {workers}
control = "control.sock"
drain_timeout = "5s"

[log]
access = "access.log"

[admin]
listen = "127.0.0.1:0"

[[listeners]]
name = "web"
listen = "127.0.0.1:0"

[upstreams.app]
balance = "round_robin"
endpoints = [
  {{ address = "127.0.0.1:{one}", weight = 1 }},
  {{ address = "127.0.0.1:{two}", weight = 1 }},
]

[[routes]]
name = "health"
path = {{ exact = "/healthz" }}
respond = {{ status = 200, body = "ok\\n" }}

[[routes]]
name = "app"
upstream = "app"
"""


class _Application(BaseHTTPRequestHandler):
    """Says who it is and what it got."""

    protocol_version = "HTTP/1.1"
    name = ""

    def do_GET(self) -> None:
        client = self.headers.get("X-Forwarded-For", "?")
        body = f"application {self.name} got {self.command} {self.path} from {client}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    do_HEAD = do_GET
    do_PUT = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """The gateway's access log says it all."""


def _application(name: str) -> tuple[int, int]:
    """Start an application in a process of its own: its pid and its port."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = sock.getsockname()[1]
    pid = os.fork()
    if pid:
        sock.close()
        return pid, port
    try:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        handler = type("Application", (_Application,), {"name": name})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
        server.socket.close()
        server.socket = sock
        server.daemon_threads = True
        server.serve_forever()
    finally:
        os._exit(0)


def run_demo(workers: int) -> int:
    """Run until Ctrl-C. Returns the exit status; raises StartError when something doesn't come up."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # they end the demo as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        applications = [_application("one"), _application("two")]
        path = Path(folder) / "gateway.toml"
        ports = {name: port for name, (_, port) in zip(("one", "two"), applications, strict=True)}
        path.write_text(_CONFIG.format(path=path, workers=workers, **ports))
        errors = Path(folder) / "error.log"
        with errors.open("wb") as output:
            command = [sys.executable, "-m", "gateway", "run", "-c", str(path)]
            gateway = subprocess.Popen(command, stderr=output, start_new_session=True)
        try:
            _explain(path, _started(gateway, path, errors), list(ports.values()))
            return gateway.wait()
        except KeyboardInterrupt:
            print("\nstopping")
            return 0
        finally:
            gateway.terminate()
            gateway.wait()
            for pid, _ in applications:
                os.kill(pid, signal.SIGTERM)
                os.waitpid(pid, 0)


def _started(gateway: subprocess.Popen[bytes], path: Path, errors: Path) -> dict[str, Any]:
    """The gateway's status once it serves."""
    end = time.monotonic() + _PATIENCE
    while gateway.poll() is None and time.monotonic() < end:
        try:
            status = ask(str(path.parent / "control.sock"), {"do": "status"})
        except ControlError:
            status = {}
        if status.get("generation"):
            return status
        time.sleep(0.05)  # between two questions to a process that is starting; it announces nothing to a terminal
    raise StartError(f"the gateway did not start:\n{errors.read_text().strip()}")


def _explain(path: Path, status: dict[str, Any], ports: list[int]) -> None:
    web = status["listeners"]["web"]
    program = Path(sys.argv[0])
    command = str(program) if program.name == "gateway" else f"{sys.executable} -m gateway"
    pids = " ".join(str(worker["pid"]) for worker in status["workers"])
    print(
        f"""\
two applications on ports {ports[0]} and {ports[1]}, a gateway on http://{web} with {len(status["workers"])} workers \
(pids {pids})
configuration: {path}

round robin:    for i in 1 2 3 4; do curl -s http://{web}/hello; done
status:         {command} status -c {path}
reload:         {command} reload -c {path}
kill a worker:  kill -9 {status["workers"][0]["pid"]}; curl -s http://{web}/still-there
metrics:        curl -s http://{status["admin"]}/metrics
access log:     tail -f {path.parent / "access.log"}

Ctrl-C stops everything.""",
        flush=True,
    )
