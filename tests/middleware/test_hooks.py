"""Hooks: what a plug-in may do to requests and responses, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from gateway import testing
from gateway.errors import StartError
from gateway.middleware.plugged import within
from gateway.testing import Answer, Gateway, Recorded
from tests.middleware.plugin_files import complaint, layer, play


def echo(request: Recorded) -> Answer:
    """What came, as it came."""
    return Answer(body=request.head + request.body)


def test_a_request_is_seen_and_rewritten(tmp_path: Path) -> None:
    code = """
    class Plug:
        async def rewrite_request(self, request):
            r = request
            assert (r.method, r.target, r.path, r.query, r.host) == ("GET", "/a%20b?c=d&e", "/a%20b", "c=d&e", "a.b")
            assert (r.client_ip, r.scheme, r.request_id, r.user, r.claims) == ("127.0.0.1", "http", "", "", None)
            assert r.parameter("c") == "d" and r.parameter("x") is None
            assert r.cookie("k") == "v" and r.cookie("none") is None
            h = r.headers
            assert h["X-Multi"] == "1" and h.all("x-multi") == ["1", "2"] and "x-none" not in h
            assert h.get("x-none", "default") == "default" and "connection" not in h and h.get("connection") is None
            assert ("x-multi", "2") in h.items() and "x-multi" in set(h)
            h["x-multi"] = "3"
            h.add("X-New", "one")
            h.add("x-new", "zw\\xf6lf")
            del h["x-gone"]
            del h["x-none"]
            r.target = "/other?x=y"
            r.host = "b.example:81"
            assert (h.all("x-multi"), r.path, h["host"]) == (["3"], "/other", "b.example:81")
    """

    async def scene(gateway: Gateway) -> None:
        fields = [
            ("host", "a.b"), ("x-multi", "1"), ("X-Multi", "2"), ("x-gone", "1"), ("cookie", "a=b; k=v"),
            ("connection", "keep-alive"),
        ]  # fmt: skip
        response = await gateway.get("/a%20b?c=d&e", fields)
        assert response.status == 200, response.body
        [request] = gateway.origin.requests
        assert request.target == "/other?x=y" and request.all("host") == ["b.example:81"]
        assert request.all("x-multi") == ["3"] and request.all("x-new") == ["one", "zwölf"]
        assert "x-gone" not in request

    play(tmp_path, code, scene, [layer("hooks")])


def test_around_all_routes_the_route_is_chosen_already(tmp_path: Path) -> None:
    code = """
    class Plug:
        def rewrite_request(self, request):
            request.headers["x-route"] = request.route or "none"
            request.target = "/b/x"
    """
    routes = [{"name": "a", "path": "/a", "upstream": "origin"}, {"name": "b", "path": "/b", "respond": {"body": "b"}}]

    async def scene(gateway: Gateway) -> None:
        assert (await gateway.get("/a/x")).body == b"hello\n"
        [request] = gateway.origin.requests
        assert request.target == "/b/x" and request["x-route"] == "a"
        assert (await gateway.get("/c")).status == 404

    play(tmp_path, code, scene, [layer("hooks")], config={"routes": routes})


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('request.headers["x-a"] = "b\\r\\nx-c: d"', "ValueError: not a header field"),
        ('request.headers["x a"] = "b"', "ValueError: not a header field"),
        ('request.headers["x-a"] = "\\u20ac"', "latin-1"),
        ('request.headers["Content-Length"] = "5"', "the gateway frames messages itself"),
        ('request.headers["connection"] = "close"', "the gateway frames messages itself"),
        ('request.headers["host"] = "b"', "Host is set by"),
        ('request.host = "a b"', "not a host"),
        ('request.target = "no-slash"', "not a request target"),
        ('request.target = "/a b"', "not a request target"),
        ('request.target = "/a\\r\\nx: y"', "not a request target"),
        ("request.respond(101)", "not the status of an answer"),
        ("request.respond(204, body=b'x')", "has no body"),
        ("import sys; sys.exit(3)", "it ended itself by SystemExit"),
        ("import asyncio; raise asyncio.CancelledError", "it ended itself by CancelledError"),
        ("raise GeneratorExit", "it ended itself by GeneratorExit"),
        ("raise KeyboardInterrupt", "it ended itself by KeyboardInterrupt"),
        ("raise BaseException", "it ended itself by BaseException"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_stand_in_a_request_fails_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, said: str
) -> None:
    async def scene(gateway: Gateway) -> None:
        for _ in range(2):
            response = await gateway.get("/x")
            assert response.status == 500 and b"middleware_failed" in response.body
            assert (await gateway.outcome()).reason == "middleware_failed"
        assert not gateway.origin.requests

    play(
        tmp_path,
        f"class Plug:\n    async def rewrite_request(self, request):\n        {code}\n",
        scene,
        [layer("hooks", name="mine")],
    )
    first, second = (record for record in caplog.records if record.name == "gateway.middleware")
    assert said in first.getMessage() and "rewrite_request of plug:Plug failed" in first.getMessage()
    assert first.getMessage().startswith("route all, layer mine: ") and "plug.py:3)" in first.getMessage()
    assert first.exc_info and not second.exc_info


def test_a_failing_request_hook_can_be_passed_by(tmp_path: Path) -> None:
    code = """
    class Plug:
        async def rewrite_request(self, request):
            request.respond(403)
            raise KeyError("x")
        async def modify_response(self, response):
            response.headers["x-half"] = "1"
            response.status = 201
            raise KeyError("x")
    """

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert (response.status, response.body) == (200, b"hello\n") and "x-half" not in response
        assert (await gateway.outcome()).reason == ""

    play(tmp_path, code, scene, [layer("hooks", on_failure="bypass")])


@pytest.mark.parametrize("hook", ["rewrite_request(self, request)", "modify_response(self, response)"])
@pytest.mark.parametrize("on_failure", ["refuse", "bypass"])
def test_a_hook_that_hangs(tmp_path: Path, caplog: pytest.LogCaptureFixture, hook: str, on_failure: str) -> None:
    code = f"""
    import asyncio
    class Plug:
        async def {hook}:
            await asyncio.sleep(3600)
    """

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        if on_failure == "refuse":
            assert response.status == 500 and b"hook_timeout" in response.body
            assert (await gateway.outcome()).reason == "hook_timeout"
        else:
            assert response.body == b"hello\n"

    play(tmp_path, code, scene, [layer("hooks", on_failure=on_failure, timeout="20ms")])
    assert "took longer than 0.02s" in caplog.text


def test_a_hook_may_wait_within_its_time(tmp_path: Path) -> None:
    code = """
    import asyncio
    class Plug:
        async def rewrite_request(self, request):
            await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await asyncio.sleep(0.001)
            task = asyncio.create_task(asyncio.sleep(0, "value"))
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                request.headers["x-value"] = await task
    """

    async def scene(gateway: Gateway) -> None:
        await gateway.get("/x")
        assert gateway.origin.requests[0]["x-value"] == "value"

    play(tmp_path, code, scene, [layer("hooks")])


def test_a_request_is_answered_instead(tmp_path: Path) -> None:
    code = """
    class Plug:
        def rewrite_request(self, request):
            request.respond(403, {"X-Why": "no"}, "nein, \\u20ac")
        def modify_response(self, response):
            response.headers["x-seen"] = "1"
    """
    outer = layer("headers", response={"set": {"x-outer": "1"}})

    async def scene(gateway: Gateway) -> None:
        response = await gateway.post("/x", b"body")
        assert (response.status, response.body.decode()) == (403, "nein, €")
        assert response["content-type"] == "text/plain; charset=utf-8" and response["x-why"] == "no"
        assert response["x-outer"] == "1" and "x-seen" not in response
        assert (await gateway.outcome()).reason == ""
        assert (await gateway.request("HEAD")).body == b""
        assert not gateway.origin.requests

    del outer["use"]
    play(tmp_path, code, scene, [outer, layer("hooks")])


def test_a_response_is_changed(tmp_path: Path) -> None:
    code = """
    class Plug:
        def rewrite_request(self, request):
            request.state["began"] = request.path
        async def modify_response(self, response):
            h = response.headers
            assert response.status == 200 and h["Content-Length"] == "6" and h.all("set-cookie") == ["a=1", "b=2"]
            response.status = 202
            h["x-path"] = response.request.state["began"]
            h.add("set-cookie", "c=3")
            del h["x-inside"]
            h["date"] = "then"
            try:
                response.request.respond(200)
            except RuntimeError:
                h["x-too-late"] = "1"
    """
    script = Answer(
        headers=[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-inside", "1"), ("date", "now")], body=b"hello\n"
    )

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert (response.status, response.body, response["content-length"]) == (202, b"hello\n", "6")
        assert response.all("set-cookie") == ["a=1", "b=2", "c=3"] and response["x-path"] == "/x"
        assert "x-inside" not in response and response.all("date") == ["then"] and response["x-too-late"] == "1"

    play(tmp_path, code, scene, [layer("hooks")], script)


@pytest.mark.parametrize("size", [10, 200_000, -1])
def test_a_body_is_replaced(tmp_path: Path, size: int) -> None:
    code = """
    class Plug:
        async def modify_response(self, response):
            response.replace("short", content_type="text/plain")
    """
    body: bytes | list[bytes] = b"x" * size if size > 0 else [b"x" * 50_000] * 10
    fields = {"content-encoding": "br", "content-type": "image/png", "accept-ranges": "bytes", "digest": "a"}

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert (response.status, response.body, response["content-length"]) == (200, b"short", "5")
        assert response["content-type"] == "text/plain"
        assert not {"content-encoding", "accept-ranges", "digest"} & {name for name, _ in response.fields}
        assert (await gateway.outcome()).reason == ""
        assert (await gateway.request("HEAD")).body == b""

    play(tmp_path, code, scene, [layer("hooks")], Answer(headers=fields, body=body))


def test_a_body_is_replaced_though_the_answer_is_held_back_further_out(tmp_path: Path) -> None:
    code = """
    class Plug:
        async def modify_response(self, response):
            response.replace("short")
    class Holding:
        def __init__(self, app):
            self.app = app
        async def __call__(self, scope, receive, send):
            kept = []
            async def keep(message):
                kept.append(message)
            await self.app(scope, receive, keep)
            for message in kept:
                await send(message)
    """

    async def scene(gateway: Gateway) -> None:
        assert (await gateway.get("/x")).body == b"short"

    for body in (b"x" * 300_000, [b"x" * 50_000] * 10):
        play(tmp_path, code, scene, [layer("asgi", "plug:Holding"), layer("hooks")], Answer(body=body))


def test_a_body_that_never_ends_is_replaced_at_once(tmp_path: Path) -> None:
    code = """
    class Plug:
        async def modify_response(self, response):
            response.replace(b"short")
    """

    async def scene(gateway: Gateway) -> None:
        assert (await gateway.get("/x")).body == b"short"
        assert (await gateway.outcome()).reason == ""

    play(tmp_path, code, scene, [layer("hooks")], Answer(body=[b"a", b"b"], pause=3600))


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_failing_response_hook_answers_500_through_the_outer_layers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    code = """
    class Plug:
        async def modify_response(self, response):
            raise KeyError("tenant")
    """
    outer: dict[str, Any] = {"kind": "headers", "response": {"set": {"x-outer": "1"}}}
    inner: dict[str, Any] = {"kind": "headers", "response": {"set": {"x-inner": "1"}}}

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert response.status == 500 and b"middleware_failed" in response.body
        assert response["x-outer"] == "1" and "x-inner" not in response
        assert (await gateway.outcome()).reason == "middleware_failed"

    play(tmp_path, code, scene, [outer, layer("hooks"), inner], Answer(body=b"x" * size))
    [record] = [record for record in caplog.records if record.name == "gateway.middleware"]
    assert "route all, layer hooks: modify_response of plug:Plug failed: KeyError: 'tenant'" in record.getMessage()


UPPER = """
class Plug:
    def transform_request_body(self, chunk, request):
        request.state["size"] = request.state.get("size", 0) + len(chunk)
        return chunk.upper() if chunk else b"|%d" % request.state["size"]
    async def transform_response_body(self, chunk):
        return chunk.lower() if chunk else b"|end"
"""


@pytest.mark.parametrize("size", [5, 300_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_are_transformed_both_ways(tmp_path: Path, size: int, is_chunked: bool) -> None:
    script = Answer(headers={"etag": '"a"', "digest": "x"}, body=[b"HEL", b"LO"], trailers={"x-sum": "1"})

    async def scene(gateway: Gateway) -> None:
        body = b"a" * size
        digest = {"content-digest": hashlib.sha256(body).hexdigest(), "accept-encoding": "gzip"}
        digest["range"] = "bytes=1-2"
        response = await gateway.post("/x", [body[:2], body[2:]] if is_chunked else body, digest)
        assert response.body == b"hello|end" and response.trailers == ()
        assert response["etag"] == 'W/"a"' and "digest" not in response and "content-length" not in response
        [request] = gateway.origin.requests
        assert request.body == b"A" * size + b"|%d" % size
        assert request["transfer-encoding"] == "chunked" and "content-length" not in request
        assert "content-digest" not in request and "accept-encoding" not in request
        assert "range" not in request
        response = await gateway.get("/x")
        assert gateway.origin.requests[1].body == b"" and "transfer-encoding" not in gateway.origin.requests[1]
        response = await gateway.request("HEAD", "/x")
        assert "content-length" not in response and response.is_whole

    play(tmp_path, UPPER, scene, [layer("hooks")], script)


def test_a_transform_may_be_declined(tmp_path: Path) -> None:
    code = (
        UPPER
        + """
    def rewrite_request(self, request):
        request.transform = False
    def modify_response(self, response):
        response.transform = False
"""
    )

    async def scene(gateway: Gateway) -> None:
        response = await gateway.post("/x", b"aAa")
        assert gateway.origin.requests[0].body == b"aAa" and gateway.origin.requests[0]["content-length"] == "3"
        assert response.body == b"HELLO" and response["content-length"] == "5"

    play(tmp_path, code, scene, [layer("hooks")], Answer(body=b"HELLO"))


def test_a_transform_keeps_its_state_for_each_request_apart(tmp_path: Path) -> None:
    code = """
    class Plug:
        def transform_response_body(self, chunk, response):
            state = response.request.state
            state["all"] = state.get("all", b"") + chunk
            return b"" if chunk else state["all"][::-1]
    """

    def script(request: Recorded) -> Answer:
        return Answer(body=[request.target.encode(), b"!"], pause=0.005)

    async def scene(gateway: Gateway) -> None:
        answers = await asyncio.gather(*(gateway.get(f"/{number}") for number in range(20)))
        assert [answer.body for answer in answers] == [f"/{number}!".encode()[::-1] for number in range(20)]

    play(tmp_path, code, scene, [layer("hooks")], script)


@pytest.mark.parametrize("wrong", ["1 / 0", "return None", "return 'text'", "return b'x' * 2000"])
def test_a_response_transform_that_fails_cuts_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    code = f"""
    class Plug:
        def transform_response_body(self, chunk):
            if chunk == b"two":
                {wrong}
            return chunk
    """

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert not response.is_whole and b"two" not in response.body
        assert (await gateway.outcome()).reason == "middleware_failed"

    play(
        tmp_path, code, scene, [layer("hooks", on_failure="bypass", max_chunk="1KiB")],
        Answer(body=[b"one", b"two", b"three"], pause=0.01),
    )  # fmt: skip
    assert "transform_response_body of plug:Plug failed" in caplog.text


@pytest.mark.parametrize("size", [5, 300_000])
def test_a_request_transform_that_fails_is_answered(tmp_path: Path, size: int) -> None:
    code = """
    class Plug:
        def transform_request_body(self, chunk):
            raise ValueError("no")
    """

    async def scene(gateway: Gateway) -> None:
        try:
            response = await gateway.post("/x", b"x" * size)
        except testing.Cut:  # the client was still sending
            assert size > 5
        else:
            assert response.status == 500 and b"middleware_failed" in response.body
        assert (await gateway.outcome()).reason == "middleware_failed"

    play(tmp_path, code, scene, [layer("hooks")])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('response.body = "text"', "AttributeError"),
        ("response.replace(5)", "a body is bytes or text, got int"),
        ("response.replace([1])", "a body is bytes or text, got list"),
        ("response.replace(None)", "a body is bytes or text, got NoneType"),
    ],
)
def test_what_cannot_be_a_body_is_not_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, said: str
) -> None:
    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert response.status == 500 and b"middleware_failed" in response.body

    play(tmp_path, f"class Plug:\n    def modify_response(self, response):\n        {code}\n", scene, [layer("hooks")])
    assert said in caplog.text and "plug.py:3)" in caplog.text


@pytest.mark.parametrize("error", ["asyncio.CancelledError", "SystemExit", "KeyboardInterrupt", "GeneratorExit"])
@pytest.mark.parametrize("wait", ["pass", "await asyncio.sleep(0)"])
@pytest.mark.parametrize(
    "hook",
    ["rewrite_request(self, request)", "modify_response(self, response)", "transform_request_body(self, chunk)",
     "transform_response_body(self, chunk)"],
)  # fmt: skip
def test_what_would_end_more_than_its_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hook: str, wait: str, error: str
) -> None:
    code = f"""
    import asyncio
    class Plug:
        async def {hook}:
            {wait}
            raise {error}
    """

    async def scene(gateway: Gateway) -> None:
        for body in (b"x", b"x" * 500_000, [b"a", b"b"]):
            if "response_body" in hook:
                with pytest.raises(testing.Cut):
                    await gateway.post("/x", body)
            else:
                response = await gateway.post("/x", body)
                assert response.status == 500 and b"middleware_failed" in response.body
            assert (await gateway.outcome()).reason == "middleware_failed"

    play(tmp_path, code, scene, [layer("hooks", name="mine")])
    assert caplog.text.count("route all, layer mine: ") == 3
    assert f"it ended itself by {error.removeprefix('asyncio.')}" in caplog.text


def test_a_call_that_is_thrown_away_is_nobodys_mistake() -> None:
    """As one is that a worker leaves behind."""

    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    async def begin() -> None:
        call.send(None)

    call = within(9, hang)
    asyncio.run(begin())
    call.close()


def test_a_transform_that_hangs(tmp_path: Path) -> None:
    code = """
    import asyncio
    class Plug:
        async def transform_request_body(self, chunk):
            await asyncio.sleep(3600)
    """

    async def scene(gateway: Gateway) -> None:
        response = await gateway.post("/x", b"x")
        assert response.status == 500 and b"hook_timeout" in response.body

    play(tmp_path, code, scene, [layer("hooks", timeout="20ms")])


ON_ERROR = """
class Plug:
    async def on_error(self, request, error):
        if request.path != "/leave":
            request.respond(error.status, {"x-reason": error.reason}, error.text)
    async def modify_response(self, response):
        response.headers["x-modified"] = "1"
"""


def test_errors_of_the_gateway_get_another_answer(tmp_path: Path) -> None:
    def script(request: Recorded) -> Answer:
        return Answer(503) if request.target == "/own" else Answer(999, {"content-length": "no"})

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert (response.status, response["x-reason"]) == (502, "http_protocol_error")
        assert response.body == b"The server behind the gateway sent something that is not HTTP."
        assert "x-modified" not in response
        assert (await gateway.outcome()).reason == "http_protocol_error"
        response = await gateway.get("/leave")
        assert response.status == 502 and b"request id" in response.body and "x-modified" not in response
        response = await gateway.get("/own")  # an answer of the endpoint's is no error of the gateway's
        assert response.status == 503 and "x-reason" not in response and response["x-modified"] == "1"

    play(tmp_path, ON_ERROR, scene, [layer("hooks")], script)


def test_no_route_is_an_error_too(tmp_path: Path) -> None:
    async def scene(gateway: Gateway) -> None:
        assert (await gateway.get("/x"))["x-reason"] == "no_route"

    routes = [{"name": "a", "path": "/a", "upstream": "origin"}]
    play(tmp_path, ON_ERROR, scene, [layer("hooks")], config={"routes": routes})


def test_an_error_hook_that_fails_leaves_the_answer_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = """
    class Plug:
        async def on_error(self, request, error):
            1 / 0
    """

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x")
        assert response.status == 502 and b"http_protocol_error" in response.body

    play(tmp_path, code, scene, [layer("hooks")], Answer(999, {"content-length": "no"}))
    assert "on_error of plug:Plug failed: ZeroDivisionError" in caplog.text


def test_interim_responses_and_upgrades_pass(tmp_path: Path) -> None:
    code = """
    class Plug:
        def modify_response(self, response):
            response.headers["x-status"] = str(response.status)
        def transform_response_body(self, chunk):
            return chunk
    """

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x", {"connection": "upgrade", "upgrade": "websocket"})
        assert response.status == 101 and "x-status" not in response

    play(tmp_path, code, scene, [layer("hooks")], Answer(101, {"connection": "upgrade", "upgrade": "websocket"}))


def test_close_is_called_at_the_end(tmp_path: Path) -> None:
    code = f"""
    from pathlib import Path
    class Plug:
        def modify_response(self, response): pass
        async def close(self):
            Path({str(tmp_path / "closed")!r}).touch()
    """

    async def scene(gateway: Gateway) -> None:
        await gateway.get("/x")

    play(tmp_path, code, scene, [layer("hooks")])
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("Plug = 5", "expected a class, got int"),
        ("class Other: pass", 'plug.py) has no "Plug"'),
        ("class Plug: pass", "it has none of rewrite_request"),
        ("class Plug:\n def modify_respone(self, r): pass", 'no hook "modify_respone"; did you mean "modify_response"'),
        ("class Plug:\n def modify_response(self): pass", "modify_response must be a method (self, response)"),
        ("class Plug:\n def on_error(self, request): pass", "on_error must be a method (self, request, error)"),
        ("class Plug:\n def __init__(self): 1 / 0", "can't be built: ZeroDivisionError: division by zero ("),
        ("class Plug:\n def __init__(self): raise SystemExit(1)", "can't be built: SystemExit: 1 ("),
        ("class Plug:\n def __init__(self, greeting): pass", "missing 1 required positional argument: 'greeting'"),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing' ("),
        ("class Plug:\n  x = = 5", "SyntaxError: invalid syntax ("),
        ("raise SystemExit('bye')", "SystemExit: bye ("),
        ("import sys\nsys.exit()", "SystemExit ("),
    ],
)
def test_what_is_no_plug_in_does_not_start(tmp_path: Path, code: str, said: str) -> None:
    assert said in complaint(tmp_path, code, "hooks")


def test_options_by_a_pydantic_model(tmp_path: Path) -> None:
    code = """
    from pydantic import BaseModel
    class Plug:
        class Options(BaseModel):
            times: int = 1
        def __init__(self, options):
            self.times = options.times
        def modify_response(self, response):
            response.headers["x-times"] = str(self.times + 1)
    """

    async def scene(gateway: Gateway) -> None:
        assert (await gateway.get("/x"))["x-times"] == "4"

    play(tmp_path, code, scene, [layer("hooks", options={"times": 3})])
    with pytest.raises(StartError, match=r"options\.tmes: there is no such option; options\.times: Input should be"):
        play(tmp_path, code, scene, [layer("hooks", options={"tmes": 3, "times": "x"})])
