"""CORS and compression as a browser takes them: a page of one origin that asks for things of another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import uvloop

from tests.listeners.site import Site
from tests.middleware.test_codings import TEXT
from tests.support.browser import looking_at
from tests.upstream.peer import Message, Origin, Peer, ok

_PATIENCE = 60.0

# The page comes from 127.0.0.1, what it asks for from localhost: another origin on the same port.
PAGE = """<!doctype html><title>other origins</title><script>
const there = `http://localhost:${location.port}`;
const heard = {};
const attempt = async (name, what) => {
  try { heard[name] = await what(); } catch (error) { heard[name] = error.name; }
};
const both = {credentials: "include"};
const json = {"content-type": "application/json", "x-asked": "1"};
(async () => {
  await attempt("get", async () => {
    const answer = await fetch(there + "/api", both);
    return [answer.status, answer.headers.get("x-total"), answer.headers.get("x-hidden")].join();
  });
  await attempt("text", async () => (await (await fetch(there + "/api/text", both)).text()).length);
  const put = {...both, method: "PUT", headers: json, body: "{}"};
  await attempt("put", async () => (await fetch(there + "/api", put)).status);
  await attempt("delete", async () => (await fetch(there + "/api", {...both, method: "DELETE"})).status);
  await attempt("field", async () => (await fetch(there + "/api", {...both, headers: {"x-unknown": "1"}})).status);
  await attempt("refused", async () => (await fetch(there + "/closed", both)).status);
  await attempt("down", async () => (await fetch(there + "/down", both)).status);
  await attempt("elsewhere", async () => (await fetch(there + "/elsewhere", both)).status);
  await attempt("twice", async () => (await fetch(there + "/twice")).status);
  await attempt("event", () => new Promise((resolve, reject) => {
    const events = new EventSource(there + "/api/events", {withCredentials: true});
    events.onmessage = event => { events.close(); resolve(event.data); };
    events.onerror = () => reject(new Error());
  }));
  await fetch("/report?" + new URLSearchParams(heard));
})();
</script><body></body>"""

ALLOWED = {
    "kind": "cors",
    "origin_regex": r"http://127\.0\.0\.1:[0-9]+",
    "methods": ["GET", "PUT"],
    "headers": ["content-type", "x-asked"],
    "expose_headers": ["x-total"],
    "credentials": True,
}
ROUTES: list[dict[str, Any]] = [
    {"name": "page", "path": "/page", "respond": {"body": PAGE, "content_type": "text/html; charset=utf-8"}},
    {"name": "report", "path": "/report", "upstream": "app"},
    {"name": "api", "path": "/api", "upstream": "app", "middleware": [ALLOWED, {"kind": "compress"}]},
    {
        "name": "closed",
        "path": "/closed",
        "upstream": "app",
        "middleware": [ALLOWED, {"kind": "ip_allow", "deny": ["0.0.0.0/0", "::/0"]}],
    },
    {"name": "down", "path": "/down", "upstream": "down", "middleware": [ALLOWED]},
    {
        "name": "elsewhere",
        "path": "/elsewhere",
        "upstream": "app",
        "middleware": [{"kind": "cors", "origins": ["https://app.example.com"]}],
    },
    {"name": "twice", "path": "/twice", "upstream": "app", "middleware": [ALLOWED | {"mode": "merge"}]},
]


class App:
    """What stands behind the gateway. seen: all requests; report: what the page has to say."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.report: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.seen.append(request)
            method, target, _ = request.start.decode().split(" ")
            path, _, query = target.partition("?")
            if path == "/report" and not self.report.done():
                self.report.set_result(dict(parse_qsl(query)))
            if path == "/api/events":
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
                await peer.send(b"data: here\n\n")
                await peer.ends()
                return
            if path == "/api/text":
                await peer.send(ok(TEXT, b"content-type: text/plain\r\n"))
            elif path == "/twice":
                allow = b"access-control-allow-origin: %b\r\n" % request[b"origin"]
                await peer.send(ok(b"ok", allow * 2))
            else:
                await peer.send(ok(method.encode(), b"x-total: 7\r\nx-hidden: 8\r\naccess-control-allow-origin: *\r\n"))


async def _visit(folder: Path) -> tuple[dict[str, str], list[Message]]:
    app = App()
    down = {"down": {"endpoints": ["127.0.0.1:9"]}}
    elsewhere = "--host-resolver-rules=MAP localhost 127.0.0.1"
    async with Origin(app) as origin, Site(origin, others=down, routes=ROUTES) as site:
        with looking_at(f"http://127.0.0.1:{site.port}/page", folder, elsewhere):
            return await app.report, app.seen


def test_a_page_of_another_origin(tmp_path: Path) -> None:
    async def patiently() -> tuple[dict[str, str], list[Message]]:
        async with asyncio.timeout(_PATIENCE):
            return await _visit(tmp_path)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        heard, seen = runner.run(patiently())
    assert heard == {
        "get": "200,7,",
        "text": str(len(TEXT)),
        "put": "200",
        "delete": "TypeError",
        "field": "TypeError",
        "refused": "403",
        "down": "502",
        "elsewhere": "TypeError",
        "twice": "200",
        "event": "here",
    }
    methods = [request.start.split(b" ")[0] for request in seen]
    assert b"OPTIONS" not in methods and b"DELETE" not in methods  # preflights end at the gateway
