"""The proxies that relay connections without reading them, as ``bench streams`` starts them: one worker, one line in a
log for each connection."""

import os
from pathlib import Path

from bench.peers.gateway import Gateway
from bench.peers.haproxy import HAProxy
from bench.peers.nginx import FILES, Nginx
from bench.peers.peer import Launch, Missing, Peer, program
from bench.process import free_port

GATEWAY = """\
[process]
workers = 1
pid_file = "{folder}/gateway.pid"
control = "{folder}/control.sock"

[log]
access = "{folder}/access.log"

[admin]
listen = "127.0.0.1:{admin}"

[[listeners]]
name = "tcp"
kind = "tcp"
listen = "127.0.0.1:{port}"
upstream = "app"

[upstreams.app]
balance = "round_robin"
endpoints = ["127.0.0.1:{origin}"]
"""

HAPROXY = """\
global
  nbthread 1
  maxconn 8000
  log stdout format raw local0
defaults
  mode tcp
  log global
  option tcplog
  timeout connect 10s
  timeout client 600s
  timeout server 600s
frontend tcp
  bind 127.0.0.1:{port} backlog 4096
  default_backend app
backend app
  server app 127.0.0.1:{origin}
"""

NGINX = """\
load_module {module};
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {files}; }}
stream {{
  log_format basic '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time';
  access_log {folder}/access.log basic;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    proxy_pass 127.0.0.1:{origin};
    proxy_timeout 600s;
  }}
}}
"""
MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))


class GatewayStream(Gateway):
    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        gateway = super().launch(port, origin, folder)
        [file] = gateway.files
        config = GATEWAY.format(folder=folder, admin=free_port(), port=port, origin=origin)
        return Launch(gateway.argv, files={file: config})


class HAProxyStream(HAProxy):
    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        haproxy = super().launch(port, origin, folder)
        [file] = haproxy.files
        return Launch(haproxy.argv, files={file: HAPROXY.format(port=port, origin=origin)})


class NginxStream(Nginx):
    def __init__(self) -> None:
        super().__init__(access_log=True)

    def find(self) -> str:
        module()
        return super().find()

    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        file = folder / "nginx.conf"
        config = NGINX.format(
            module=module(),
            user="user root;" if os.geteuid() == 0 else "",
            files=FILES,
            folder=folder,
            origin=origin,
            port=port,
        )
        argv = (program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file))
        return Launch(argv, files={file: config})


def module() -> Path:
    """nginx's module for streams; raises Missing. Debian has it in the package libnginx-mod-stream."""
    for folder in MODULES:
        if (file := folder / "ngx_stream_module.so").exists():
            return file
    raise Missing("nginx has no ngx_stream_module.so here (Debian: libnginx-mod-stream)")


STREAM_PEERS: dict[str, Peer] = {
    "gateway": GatewayStream(),
    "haproxy": HAProxyStream(),
    "nginx": NginxStream(),
}
