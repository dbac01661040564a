"""Foreign ASGI classes as layers: what they may do, and what becomes of those that break the rules."""

from __future__ import annotations

import asyncio
import gzip
import textwrap
from pathlib import Path
from typing import Any

import pytest

from gateway import testing
from gateway.testing import Answer, Gateway
from tests.middleware.plugin_files import complaint, layer, play

HELLO = b"hello\n"
NOTHING = ""


def plug(body: str, prologue: str = "") -> str:
    """A class whose `__call__` is this code, given self.app, scope, receive and send."""
    call = textwrap.indent(textwrap.dedent(body), " " * 8)
    return f"""
{prologue}
class Plug:
    def __init__(self, app, **options):
        self.app, self.options = app, options

    async def __call__(self, scope, receive, send):
{call}
"""


# Well-known classes, as they are.

STARLETTE = "starlette.middleware"


def test_gzip_of_starlette(tmp_path: Path) -> None:
    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x", {"accept-encoding": "gzip"})
        assert response["content-encoding"] == "gzip" and gzip.decompress(response.body) == b"x" * 5000
        response = await gateway.get("/x")
        assert "content-encoding" not in response and response.body == b"x" * 5000
        response = await gateway.request("HEAD", "/x", {"accept-encoding": "gzip"})
        assert response.status == 200

    use = f"{STARLETTE}.gzip:GZipMiddleware"
    for body in (b"x" * 5000, [b"x" * 4000, b"x" * 1000]):
        script = Answer(headers={"content-type": "text/plain"}, body=body)
        play(tmp_path, NOTHING, scene, [layer("asgi", use, options={"minimum_size": 500})], script)


def test_trusted_hosts_of_starlette(tmp_path: Path) -> None:
    async def scene(gateway: Gateway) -> None:
        assert (await gateway.get("/x", {"host": "good.example"})).body == HELLO
        response = await gateway.get("/x", {"host": "evil.example"})
        assert (response.status, response.body) == (400, b"Invalid host header")
        assert len(gateway.origin.requests) == 1
        assert (await gateway.outcome()).status == 200
        assert (await gateway.outcome()).reason == ""

    use = f"{STARLETTE}.trustedhost:TrustedHostMiddleware"
    play(tmp_path, NOTHING, scene, [layer("asgi", use, options={"allowed_hosts": ["good.example"]})])


def test_cors_of_starlette(tmp_path: Path) -> None:
    async def scene(gateway: Gateway) -> None:
        asked = {"origin": "https://a.example", "access-control-request-method": "PUT"}
        response = await gateway.request("OPTIONS", "/x", asked)
        assert response.status == 200 and "PUT" in response["access-control-allow-methods"]
        assert not gateway.origin.requests
        response = await gateway.get("/x", {"origin": "https://a.example"})
        assert response["access-control-allow-origin"] == "https://a.example" and response.body == HELLO

    use = f"{STARLETTE}.cors:CORSMiddleware"
    options = {"allow_origins": ["https://a.example"], "allow_methods": ["PUT"]}
    play(tmp_path, NOTHING, scene, [layer("asgi", use, options=options)])


def test_asgi_correlation_id(tmp_path: Path) -> None:
    async def scene(gateway: Gateway) -> None:
        sent = "8ef9a4f3b8f84d4f9e5e1c8a3c0c5f1e"
        assert (await gateway.get("/x", {"x-request-id": sent}))["x-request-id"] == sent
        assert (await gateway.get("/x"))["x-request-id"] != sent

    play(tmp_path, NOTHING, scene, [layer("asgi", "asgi_correlation_id:CorrelationIdMiddleware")])


BASE = """
from starlette.middleware.base import BaseHTTPMiddleware
class Plug(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        if request.headers.get("x-read"):
            body = await request.body()
            assert body == b"b" * 100_000
        if request.headers.get("x-stop"):
            from starlette.responses import PlainTextResponse
            return PlainTextResponse("stopped", 418)
        response = await call_next(request)
        response.headers["x-base"] = "1"
        if request.headers.get("x-raise"):
            1 / 0
        return response
"""


def test_a_task_group_between_the_layers(tmp_path: Path) -> None:
    """Starlette's BaseHTTPMiddleware runs the application in a task of its own."""
    outer: dict[str, Any] = {"kind": "headers", "response": {"set": {"x-outer": "1"}}}
    script = Answer(body=[b"a" * 1000] * 50, trailers={"x-sum": "7"})

    async def scene(gateway: Gateway) -> None:
        for fields in ({}, {"x-read": "1"}):
            response = await gateway.post("/x", b"b" * 100_000, fields)
            assert response.body == b"a" * 50_000 and response["x-base"] == "1" and response["x-outer"] == "1"
            assert response.trailers == (("x-sum", "7"),)
            assert gateway.origin.requests[-1].body == b"b" * 100_000
            assert gateway.origin.requests[-1]["content-length"] == "100000"
        assert (await gateway.get("/x", {"x-stop": "1"})).status == 418
        response = await gateway.get("/x", {"x-raise": "1"})
        assert response.status == 500 and b"middleware_failed" in response.body and response["x-outer"] == "1"
        response = await gateway.get("/x", {"connection": "upgrade", "upgrade": "websocket"})
        assert response.status == 200

    play(tmp_path, BASE, scene, [outer, layer("asgi"), layer("asgi", name="again")], script)


def test_errors_from_further_in_pass_a_task_group(tmp_path: Path) -> None:
    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert response.status == 502 and response["x-base"] == "1"
        assert (await gateway.outcome()).reason == "http_protocol_error"

    play(tmp_path, BASE, scene, [layer("asgi")], Answer(999, {"content-length": "no"}))


@pytest.mark.parametrize("code", [BASE, plug("await self.app(scope, receive, send)")])
def test_a_switch_of_protocols_goes_round_it(tmp_path: Path, code: str) -> None:
    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x", {"connection": "upgrade", "upgrade": "websocket"})
        assert response.status == 101 and "x-base" not in response
        assert (await gateway.outcome()).status == 101

    play(tmp_path, code, scene, [layer("asgi")], Answer(101, {"connection": "upgrade", "upgrade": "websocket"}))


# What it is given.


def test_the_scope_is_a_plain_one(tmp_path: Path) -> None:
    code = plug(
        """
        headers = scope["headers"]
        assert type(headers) is list and all(type(pair) is tuple for pair in headers), headers
        assert dict(headers)[b"host"] == b"a.example" and dict(headers)[b"x-native"] == b"1"
        assert scope["path"] == "/a b" and scope["raw_path"] == b"/a%20b" and scope["query_string"] == b"c=d"
        assert (scope["method"], scope["scheme"], scope["root_path"]) == ("GET", "http", "")
        assert scope["type"] == "http" and scope["asgi"]["version"] == "3.0"
        assert scope["client"][0] == "127.0.0.1" and len(scope["server"]) == 2
        assert isinstance(scope["state"], dict) and isinstance(scope["extensions"], dict)
        assert scope["gateway"].host == b"a.example"
        assert self.options == {"one": 1}
        await self.app(scope, receive, send)
        assert type(scope["headers"]) is list
        """
    )
    outer: dict[str, Any] = {"kind": "headers", "request": {"set": {"x-native": "1"}}}

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/a%20b?c=d", {"host": "a.example"})
        assert response.body == HELLO

    play(tmp_path, code, scene, [outer, layer("asgi", options={"one": 1})])


# What it does to requests.


def edit(lines: str) -> str:
    return plug(lines + "\nawait self.app(scope, receive, send)")


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ('scope["headers"].append((b"X-New", b"1"))', {"x-new": "1"}),
        ('scope["headers"] = [*scope["headers"], (b"x-old", b"2")]', {"x-old": "1, 2"}),
        ('scope["headers"] = [p for p in scope["headers"] if p[0] != b"x-old"]', {"x-old": None}),
        ('scope["headers"] = ((n, b"9" if n == b"x-old" else v) for n, v in scope["headers"])', {"x-old": "9"}),
        ('scope = {**scope, "headers": [(n, v) for n, v in scope["headers"] if n == b"host"]}', {"x-old": None}),
        ('scope["headers"][:] = [(n, b"b.example" if n == b"host" else v) for n, v in scope["headers"]]',
         {"host": "b.example"}),
        ('scope["headers"].append((b"x-forwarded-for", b"9.9.9.9"))', {"x-forwarded-for": "127.0.0.1, 9.9.9.9"}),
        ('scope["headers"].append((b"transfer-encoding", b"chunked"))', {"transfer-encoding": None}),
        ('scope["headers"].append((b"content-length", b"7"))', {"content-length": None}),
        ('scope["path"] = "/b c/ü"', {":target": "/b%20c/%C3%BC?q=%20"}),
        ('scope["path"], scope["raw_path"] = "/b c", b"/b%20c"', {":target": "/b%20c?q=%20"}),
        ('scope["raw_path"] = b"/only%2Fraw"', {":target": "/only%2Fraw?q=%20"}),
        ('scope["query_string"] = b""', {":target": "/a%20b"}),
        ('scope["query_string"] = b"x=%00"', {":target": "/a%20b?x=%00"}),
        ('scope["method"] = "PATCH"', {":method": "PATCH"}),
        ('scope["root_path"] = "/app"', {":target": "/a%20b?q=%20"}),
        ("scope = dict(scope)", {":target": "/a%20b?q=%20", "x-old": "1"}),
    ],
)  # fmt: skip
def test_requests_are_changed(tmp_path: Path, code: str, wanted: dict[str, str | None]) -> None:
    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/a%20b?q=%20", {"host": "a.example", "x-old": "1"})
        assert response.status == 200, response.body
        [request] = gateway.origin.requests
        for name, value in wanted.items():
            if name == ":target":
                assert request.target == value
            elif name == ":method":
                assert request.method == value
            else:
                assert (", ".join(request.all(name)) or None) == value
        assert len(request.all("host")) == 1

    play(tmp_path, edit(code), scene, [layer("asgi")])


@pytest.mark.parametrize(
    "code",
    [
        'scope["headers"].append((b"x-a", b"b\\r\\nx-c: d"))',
        'scope["headers"].append((b"x a", b"b"))',
        'scope["headers"].append((b"x-a", b"\\0"))',
        'scope["headers"].append(("x-a", "text"))',
        'scope["headers"].append((b"host", b"b"))',
        'scope["headers"] = None',
        'scope["path"], scope["raw_path"] = "/a", b"/a b"; scope["path"] = "/a b"; scope["query_string"] = b"a b"',
        'scope["raw_path"] = b"/a\\r\\nx: y"',
        'scope["path"] = "no-slash"',
        'scope["method"] = "A B"',
        'scope["method"] = "HEAD"',
        'scope["method"] = "CONNECT"',
        'scope = {"type": "http", "method": "GET", "path": "/", "headers": []}',
        'scope = {**scope, "type": "websocket"}',
    ],
)
def test_what_cannot_be_a_request_is_not_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str) -> None:
    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert response.status == 500 and b"middleware_failed" in response.body
        assert not gateway.origin.requests

    play(tmp_path, edit(code), scene, [layer("asgi", name="mine")])
    assert "layer mine: it failed on b'/x'" in caplog.text


WRAPPED = """
        async def other():
            message = await receive()
            return {**message, "body": CHANGE(message.get("body", b""))}
        HEADERS
        await self.app(scope, other, send)
"""


@pytest.mark.parametrize(
    ("change", "headers", "wanted", "framing"),
    [
        ("lambda body: body.upper()", "pass", b"HELLO", "content-length"),
        ("lambda body: body * 2", 'scope["headers"] = [(n, b"10" if n == b"content-length" else v) '
         'for n, v in scope["headers"]]', b"hellohello", "transfer-encoding"),
        ("lambda body: b''", 'scope["headers"] = [p for p in scope["headers"] if p[0] != b"content-length"]',
         b"", "transfer-encoding"),
        ("lambda body: body * 2", "pass", None, ""),
        ("lambda body: b''", "pass", None, ""),
    ],
)  # fmt: skip
def test_the_body_is_wrapped(tmp_path: Path, change: str, headers: str, wanted: bytes | None, framing: str) -> None:
    code = plug(WRAPPED.replace("HEADERS", headers), f"CHANGE = {change}")

    async def scene(gateway: Gateway) -> None:
        response = await gateway.post("/x", b"hello")
        if wanted is None:
            assert response.status == 500 and b"middleware_failed" in response.body
            assert all(request.body == b"" for request in gateway.origin.requests)
            return
        [request] = gateway.origin.requests
        assert request.body == wanted and framing in request
        assert ("content-length" in request) != ("transfer-encoding" in request)

    play(tmp_path, code, scene, [layer("asgi")])


def test_a_body_is_given_to_a_request_without_one(tmp_path: Path) -> None:
    code = plug(
        """
        async def other():
            return {"type": "http.request", "body": b"made up"}
        scope["headers"].append((b"content-length", b"7"))
        await self.app(scope, other, send)
        """
    )

    async def scene(gateway: Gateway) -> None:
        await gateway.request("PUT")
        assert gateway.origin.requests[0].body == b"made up"

    play(tmp_path, code, scene, [layer("asgi")])


# What it does to responses.


def test_a_response_is_changed(tmp_path: Path) -> None:
    code = plug(
        """
        async def other(message):
            if message["type"] == "http.response.start":
                message["status"] = 202
                message["headers"].append((b"X-New", b"1"))
                message["headers"] = [p for p in message["headers"] if p[0] != b"content-length"]
            elif message["type"] == "http.response.body":
                message = {"type": "http.response.body", "body": message["body"].upper(),
                           "more_body": message.get("more_body", False)}
            await send(message)
        await self.app(scope, receive, other)
        """
    )
    outer: dict[str, Any] = {"kind": "headers", "response": {"set": {"x-outer": "1"}, "remove": ["x-new"]}}

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert (response.status, response.body) == (202, b"HELLO\n")
        assert response["x-outer"] == "1" and "x-new" not in response and response["transfer-encoding"] == "chunked"

    play(tmp_path, code, scene, [outer, layer("asgi")])


def test_a_response_that_is_only_looked_at_is_the_same(tmp_path: Path) -> None:
    code = plug(
        """
        async def other(message):
            await send(dict(message))
        await self.app(scope, receive, other)
        """
    )
    fields = [("X-Case", "Kept"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("date", "then")]

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert response.body == HELLO and b"X-Case: Kept" in response.head and b" Scripted\r\n" in response.head
        assert response.all("set-cookie") == ["a=1", "b=2"] and response.all("date") == ["then"]

    play(tmp_path, code, scene, [layer("asgi")], Answer(headers=fields, body=HELLO))


def test_it_answers_itself(tmp_path: Path) -> None:
    code = plug(
        """
        await send({"type": "http.response.start", "status": 418})
        await send({"type": "http.response.body", "body": b"tea"})
        """
    )

    async def scene(gateway: Gateway) -> None:
        response = await gateway.post("/x", b"x" * 500_000)
        assert (response.status, response.body) == (418, b"tea")
        assert not gateway.origin.requests
        assert (await gateway.outcome()).reason == ""

    play(tmp_path, code, scene, [layer("asgi")])


def test_it_holds_the_whole_response_back(tmp_path: Path) -> None:
    code = plug(
        """
        kept = []
        async def other(message):
            kept.append(message)
        await self.app(scope, receive, other)
        start = kept[0]
        body = b"".join(m.get("body", b"") for m in kept[1:])[::-1]
        headers = [p for p in start["headers"] if p[0] != b"content-length"]
        await send({**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
        """
    )

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert response.body == b"cba" and response["content-length"] == "3" and response.trailers == ()

    play(tmp_path, code, scene, [layer("asgi")], Answer(body=[b"a", b"b", b"c"], trailers={"x-sum": "1"}))


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_trailers_go_with_the_body_they_belong_to(tmp_path: Path, change: bool, own: bool) -> None:
    code = plug(
        f"""
        async def other(message):
            if message["type"] == "http.response.start" and {own}:
                message["trailers"] = True
            if message["type"] == "http.response.body" and {change}:
                message["body"] = message["body"].upper()
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body") and {own}:
                await send({{"type": "http.response.trailers", "headers": [(b"x-own", b"2")]}})
        await self.app(scope, receive, other)
        """
    )

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert response.body == (b"ABC" if change else b"abc") and response.is_whole
        assert dict(response.trailers).get("x-own") == ("2" if own else None)
        assert ("x-sum" in dict(response.trailers)) == (not change and not own)

    play(tmp_path, code, scene, [layer("asgi")], Answer(body=[b"a", b"b", b"c"], trailers={"x-sum": "1"}))


# What breaks the rules.

_START = 'await send({"type": "http.response.start", "status": 200, "headers": []})'
_BAD = 'await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"\\n")]})'
_BODY = 'await send({"type": "http.response.body", "body": b"x"})'


@pytest.mark.parametrize(
    ("code", "said", "status"),
    [
        ("pass", "plug:Plug returned without an answer", 500),
        ("1 / 0", "ZeroDivisionError", 500),
        (f"{_START}\n{_START}", "it began a second answer", 0),
        (f"{_START}\n{_BODY}\n{_BODY}", "it sent a body after the end of its answer", 200),
        (f"{_BODY}", "it sent a body first", 500),
        (f"{_START}", "plug:Plug returned before its answer was whole", 0),
        (f"{_START}\n1 / 0", "ZeroDivisionError", 0),
        (f"{_START}\n{_BODY}\nawait self.app(scope, receive, send)", "what it had answered itself", 200),
        ('await send({"type": "http.response.start", "status": 99, "headers": []})', "not the status", 500),
        (_BAD, "not a header", 500),
        ('await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"x")]})',
         "not a content-length", 500),
        ('await send({"type": "nonsense"})', "nonsense", 500),
        ('raise SystemError("x")', "SystemError", 500),
    ],
)  # fmt: skip
def test_rules_that_are_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, said: str, status: int
) -> None:
    async def scene(gateway: Gateway) -> None:
        try:
            response = await gateway.get("/x")
        except testing.Cut:
            assert status == 0
        else:
            assert response.status == (status or 200) and response.is_whole == bool(status)

    play(tmp_path, plug(code), scene, [layer("asgi")])
    assert said in caplog.text


_CANCEL = "task = asyncio.ensure_future(asyncio.sleep(9)); task.cancel(); await task"
_ENDS = [
    (_CANCEL, "CancelledError"),
    ("sys.exit(3)", "SystemExit: 3"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("raise GeneratorExit", "GeneratorExit"),
    ("raise BaseException('x')", "BaseException: x"),
]


@pytest.mark.parametrize(("code", "said"), _ENDS)
@pytest.mark.parametrize("where", ["call", "later", "receive", "send", "body"])
def test_what_would_end_more_than_its_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, said: str, where: str
) -> None:
    """A large body is pumped in a task of its own, a small one is taken in that of the request."""
    bodies = {
        "call": code,
        "later": f"await asyncio.sleep(0)\n{code}",
        "receive": f"async def other():\n    await asyncio.sleep(0)\n    {code}\nawait self.app(scope, other, send)",
        "send": f"async def other(message):\n    {code}\nawait self.app(scope, receive, other)",
        "body": f"async def other(message):\n    if 'body' in message:\n        {code}\n    await send(message)\n"
        "await self.app(scope, receive, other)",
    }
    outer: dict[str, Any] = {"kind": "headers", "response": {"set": {"x-outer": "1"}}}

    async def scene(gateway: Gateway) -> None:
        for body in (b"x", b"x" * 500_000, [b"a", b"b"]):
            if where == "body":  # the head is out, and must not look like that of a whole answer
                with pytest.raises(testing.Cut):
                    await gateway.post("/x", body)
            else:
                response = await gateway.post("/x", body)
                assert response.status == 500 and b"middleware_failed" in response.body and response["x-outer"] == "1"
            assert (await gateway.outcome()).reason == "middleware_failed"

    play(tmp_path, plug(bodies[where], "import asyncio, sys"), scene, [outer, layer("asgi", name="mine")])
    assert caplog.text.count("route all, layer mine: it failed on b'/x'") == 3 and said in caplog.text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('return {"type": "http.disconnect"}', "it said that the client is gone, which is there"),
        ('return {"type": "nonsense"}', "not a part of a request: 'nonsense'"),
        ("return {}", "KeyError: 'type'"),
        ("return None", "TypeError"),
        ('return {"type": "http.request", "body": 5}', "expected bytes, got int"),
        ('return {"type": "http.request", "body": "text"}', "expected bytes, got str"),
        ('return {"type": "http.request", "body": b"x" * 600_000}', "it changed the length of the request's body"),
        ('return {"type": "http.request"}', "it changed the length of the request's body"),
    ],
)
def test_what_is_no_part_of_a_request(tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, said: str) -> None:
    """Nobody but the layer is to blame, and nobody waits."""
    mine = plug(f"async def other():\n    {code}\nawait self.app(scope, other, send)")

    async def scene(gateway: Gateway) -> None:
        for body in (b"xyz", b"x" * 500_000):
            response = await gateway.post("/x", body)
            assert response.status == 500 and b"middleware_failed" in response.body
            assert (await gateway.outcome()).reason == "middleware_failed"

    play(tmp_path, mine, scene, [layer("asgi", name="mine")])
    assert caplog.text.count("route all, layer mine: it failed on b'/x'") == 2 and said in caplog.text


def test_a_body_is_given_without_saying_much(tmp_path: Path) -> None:
    code = plug(
        """
        async def other():
            return {"type": "http.request"}
        await self.app(scope, other, send)
        """
    )

    async def scene(gateway: Gateway) -> None:
        assert (await gateway.post("/x", [b"abc", b"def"])).body == HELLO
        assert gateway.origin.requests[0].body == b""

    play(tmp_path, code, scene, [layer("asgi")])


def test_an_answer_whose_body_is_a_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = plug(f'{_START}\nawait send({{"type": "http.response.body", "body": 5}})')

    async def scene(gateway: Gateway) -> None:
        with pytest.raises(testing.Cut):
            await gateway.get("/x")

    play(tmp_path, code, scene, [layer("asgi")])
    assert "expected bytes, got int" in caplog.text


def test_the_application_is_called_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = plug(
        """
        async def nowhere(message):
            pass
        await self.app(scope, receive, nowhere)
        await self.app(scope, receive, send)
        """
    )

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert response.status == 500 and len(gateway.origin.requests) == 1

    play(tmp_path, code, scene, [layer("asgi")])
    assert "it called the application twice for one request" in caplog.text


def test_a_response_that_is_swallowed(tmp_path: Path) -> None:
    code = plug(
        """
        async def nowhere(message):
            pass
        await self.app(scope, receive, nowhere)
        """
    )

    async def scene(gateway: Gateway) -> None:
        assert (await gateway.get("/x")).status == 500

    play(tmp_path, code, scene, [layer("asgi")])


def test_it_raises_after_it_has_heard_the_answer(tmp_path: Path) -> None:
    code = plug(
        """
        async def other(message):
            raise KeyError("x")
        await self.app(scope, receive, other)
        """
    )
    outer: dict[str, Any] = {"kind": "headers", "response": {"set": {"x-outer": "1"}}}

    async def scene(gateway: Gateway) -> None:
        for _ in range(2):
            response = await gateway.get("/x")
            assert response.status == 500 and b"middleware_failed" in response.body and response["x-outer"] == "1"
        assert (await gateway.get("/x")).status == 500

    play(tmp_path, code, scene, [outer, layer("asgi")], Answer(body=b"x" * 300_000))


def test_an_endpoint_that_breaks_off_under_one_that_holds_back(tmp_path: Path) -> None:
    code = plug(
        """
        kept = []
        async def other(message):
            kept.append(message)
        await self.app(scope, receive, other)
        for message in kept:
            await send(message)
        """
    )

    async def scene(gateway: Gateway) -> None:
        try:
            response = await gateway.get("/x")
        except testing.Cut:
            pass
        else:
            assert response.status == 500 or not response.is_whole
        assert (await gateway.outcome()).reason == "connection_terminated"
        assert len(gateway.origin.requests) == 1

    play(tmp_path, code, scene, [layer("asgi")], Answer(body=[b"a", b"b"], cut=True))


def test_two_listen_at_once(tmp_path: Path) -> None:
    code = plug(
        """
        gone = asyncio.create_task(receive())
        await asyncio.sleep(0.01)
        assert (await gone)["type"] == "http.request"
        first, second = asyncio.create_task(receive()), asyncio.create_task(receive())
        await asyncio.sleep(0.01)
        await self.app(scope, receive, send)
        first.cancel()
        second.cancel()
        """,
        "import asyncio",
    )

    async def scene(gateway: Gateway) -> None:
        assert (await gateway.get("/x")).body == HELLO

    play(tmp_path, code, scene, [layer("asgi")])


def test_a_client_that_leaves_is_heard_of(tmp_path: Path) -> None:
    code = plug(
        """
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            Path(PATH).touch()
            raise
        """,
        f"import asyncio\nfrom pathlib import Path\nPATH = {str(tmp_path / 'heard')!r}",
    )

    async def scene(gateway: Gateway) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await gateway.get("/x")
        assert (await gateway.outcome()).reason == "client_gone"
        assert (tmp_path / "heard").exists()

    play(tmp_path, code, scene, [layer("asgi")])


def test_a_client_that_leaves_its_body_behind_is_no_mistake(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = plug(
        """
        async def other():
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ValueError("the client has gone")
            return message
        await self.app(scope, other, send)
        """
    )

    async def scene(gateway: Gateway) -> None:
        head = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await gateway.raw(head, b"x" * 1000)
        assert (await gateway.outcome()).reason == "client_gone"

    play(tmp_path, code, scene, [layer("asgi")])
    assert "it failed on" not in caplog.text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("Plug = 5", "expected a class, got int"),
        ("class Plug:\n def __init__(self): pass", "takes 1 positional argument but 2 were given"),
        ("class Plug:\n def __init__(self, app): pass", "can't be called with scope, receive and send"),
        ("class Plug:\n def __init__(self, app): 1 / 0", "ZeroDivisionError: division by zero ("),
    ],
)
def test_what_is_no_middleware_does_not_start(tmp_path: Path, code: str, said: str) -> None:
    assert said in complaint(tmp_path, code, "asgi")
