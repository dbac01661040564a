"""A fixed answer in the place of a route's own."""

from __future__ import annotations

from gateway.middleware.respond import Options, Respond
from tests.listeners.site import get
from tests.middleware.rig import Inner, ask, layer
from tests.upstream.peer import live


@live
async def test_every_request() -> None:
    inner = Inner(b"app")
    one = layer(Respond, inner, status=503, body="Zurück um zwölf", headers={"Retry-After": "3600"})
    for request in (get(), get(b"/x", method=b"POST")):
        answer = await ask(one, request)
        assert (answer.status, answer.body, answer[b"retry-after"]) == (503, "Zurück um zwölf".encode(), b"3600")
        assert answer[b"content-length"] == b"%d" % len(answer.body)
        assert answer[b"content-type"] == b"text/plain; charset=utf-8"
        assert answer.exchange.begun
    assert not inner.was_asked


@live
async def test_some_methods_and_paths() -> None:
    one = layer(Respond, Inner(b"app"), body="fixed", methods=["GET", "HEAD"], path="/a/b")
    for method, path, body in [
        ("GET", "/a/b", b"fixed"),
        ("GET", "/a/b/c?d", b"fixed"),
        ("GET", "/a/%62/", b"fixed"),
        ("GET", "/a/bc", b"app"),
        ("GET", "/a", b"app"),
        ("POST", "/a/b", b"app"),
    ]:
        assert (await ask(one, get(path.encode(), method=method.encode()))).body == body


@live
async def test_the_root_is_above_everything() -> None:
    one = layer(Respond, Inner(b"app"), body="fixed", path="/")
    assert (await ask(one, get(b"/x"))).body == b"fixed"


def test_whether_anything_is_let_through() -> None:
    assert Options.answers({"kind": "respond"})
    assert not Options.answers({"kind": "respond", "path": "/x"})
    assert not Options.answers({"kind": "respond", "methods": ["POST"]})
