"""This project's gateway: one worker, access log as JSON to a file, metrics on; once as it is, once with layers."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from bench.peers.peer import IDLE_UPSTREAM_CONNECTIONS, Launch, Missing, Peer, version_in
from bench.process import free_port
from bench.token import SECRET

CONFIG = """\
[process]
workers = {workers}
pid_file = "{folder}/gateway.pid"
control = "{folder}/control.sock"

[log]
access = "{folder}/access.log"
access_format = "json"

[admin]
listen = "127.0.0.1:{admin}"

[[listeners]]
name = "web"
listen = "127.0.0.1:{port}"
backlog = 4096

[upstreams.app]
balance = "round_robin"
endpoints = ["127.0.0.1:{origin}"]
[upstreams.app.pool]
max_idle = {idle}

[[routes]]
name = "app"
upstream = "app"
"""


# What an API in front of the public has: names for requests, a field for responses, a limit, and who asks.
LAYERS = f"""\

[[middleware]]
kind = "request_id"

[[middleware]]
kind = "headers"
response = {{{{ set = {{{{ x-frame-options = "DENY" }}}}, remove = ["server"] }}}}

[[middleware]]
kind = "rate_limit"
key = "client_ip"
rate = "1000000/s"

[[middleware]]
kind = "jwt"
algorithms = ["HS256"]
secret = "{SECRET}"
optional = true  # whoever asks whether it is up has none
"""


class Gateway(Peer):
    def __init__(self, workers: int = 1, layers: bool = False) -> None:
        self.workers = workers
        self.layers = layers

    def find(self) -> str:
        if importlib.util.find_spec("gateway.__main__") is None:
            raise Missing("python -m gateway can't be run from here")
        return version_in(importlib.metadata.version("gateway"))

    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        file = folder / "gateway.toml"
        config = (CONFIG + (LAYERS if self.layers else "")).format(
            workers=self.workers,
            folder=folder,
            admin=free_port(),
            port=port,
            origin=origin,
            idle=IDLE_UPSTREAM_CONNECTIONS,
        )
        return Launch((sys.executable, "-m", "gateway", "run", "-c", str(file)), files={file: config})
