"""nginx: one worker process, pooled HTTP/1.1 connections to the origin, with its usual access log or without."""

import os
from pathlib import Path

from bench.peers.peer import IDLE_UPSTREAM_CONNECTIONS, Launch, Peer, program, said, version_in

# Uploads are passed on as they come and downloads never go through a file: every other peer streams as well.
CONFIG = """\
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {files}; }}
http {{
  access_log {access_log};
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  upstream app {{
    server 127.0.0.1:{origin};
    keepalive {idle};
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"""
FILES = 16384


class Nginx(Peer):
    def __init__(self, access_log: bool) -> None:
        self.access_log = access_log

    def find(self) -> str:
        return version_in(said(program("nginx"), "-v"))

    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        file = folder / "nginx.conf"
        config = CONFIG.format(
            # Started by root its worker would become a user who may not write to the folder.
            user="user root;" if os.geteuid() == 0 else "",
            files=FILES,
            folder=folder,
            access_log=f"{folder}/access.log combined" if self.access_log else "off",
            origin=origin,
            idle=IDLE_UPSTREAM_CONNECTIONS,
            port=port,
        )
        return Launch(
            (program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)),
            files={file: config},
        )
