"""The harness for plug-ins: what it sends is what was asked for, and what it tells is what came."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway import testing
from gateway.config.problems import ConfigErrors
from gateway.testing import Answer, Gateway, Origin, Recorded

PLUGINS = Path(__file__).parent.parent / "conf" / "plugins"


def test_the_example_of_the_docstring_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PLUGINS.parent.parent)
    text = testing.__doc__ or ""
    code = "\n".join(line[4:] for line in text.split("\n") if line.startswith("    "))
    names: dict[str, object] = {}
    exec(code, names)
    names["test_a_greeting_is_added"]()  # type: ignore[operator]


def test_a_configuration_from_a_file(tmp_path: Path) -> None:
    """As people write it, with paths that start at the file, and both kinds of plug-ins in one route."""
    (tmp_path / "plugins").symlink_to(PLUGINS)
    file = tmp_path / "gateway.toml"
    file.write_text(
        """
        [process]
        python_path = ["plugins"]
        [[listeners]]
        name = "web"
        listen = "127.0.0.1:1"
        [upstreams.app]
        endpoints = ["127.0.0.1:1", "127.0.0.1:2"]
        [upstreams.app.health]
        [[routes]]
        name = "plugin"
        path = "/plugin"
        upstream = "app"
        middleware = [
          { kind = "hooks", use = "my_hooks:Hooks", options = { greeting = "hello" } },
          { kind = "asgi", use = "my_middleware:Timing", options = { header = "x-took" } },
        ]
        """
    )

    async def scene() -> None:
        async with Gateway(file, middleware=[{"kind": "request_id"}]) as gateway:
            response = await gateway.get("/plugin/x")
            assert response.body == b"hello\n" and response["x-greeting"] == "hello" and "x-took" in response
            assert gateway.origin.requests[0]["x-greeting"] == "hello"
            assert "x-request-id" in gateway.origin.requests[0]
            assert (await gateway.get("/other")).status == 404
            assert [(await gateway.outcome()).route for _ in range(2)] == ["plugin", ""]

    asyncio.run(scene())


def test_a_script_is_played(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        answers = [
            Answer(body=b"whole", headers=[("x-a", "1"), ("X-A", "2")]),
            Answer(body=[b"in ", b"parts"], trailers={"x-sum": "1"}, delay=0.001, pause=0.001),
            Answer(body=b"half of it", cut=True),
            Answer(body=[b"all but", b"the end"], cut=True),
            Answer(304),
        ]
        async with Gateway(origin=Origin(answers)) as gateway:
            response = await gateway.request("PUT", "/a?b", {"x-one": "1", "host": "h"}, b"body")
            assert (response.status, response.body, response.all("x-a")) == (200, b"whole", ["1", "2"])
            assert (response["x-a"], response.is_whole, response.interim) == ("1", True, ())
            with pytest.raises(KeyError):
                response["x-b"]
            response = await gateway.post("/", [b"one", b"two"])
            assert response.body == b"in parts" and response.trailers == (("x-sum", "1"),)
            response = await gateway.get()
            assert response.status == 200 and not response.is_whole
            response = await gateway.get()
            assert response.status == 200 and not response.is_whole
            for _ in range(2):  # the last one is for all others
                assert (await gateway.get()).status == 304
            first, second = gateway.origin.requests[:2]
            assert (first.method, first.target, first["host"], first.body) == ("PUT", "/a?b", "h", b"body")
            assert first.head.startswith(b"PUT /a?b HTTP/1.1\r\nx-one: 1\r\n") and first.head.endswith(b"\r\n\r\n")
            assert second.body == b"onetwo"
            assert (await gateway.request("HEAD")).status == 304

    asyncio.run(scene())


def test_a_function_answers() -> None:
    async def script(request: Recorded) -> Answer:
        await asyncio.sleep(0)
        return Answer(body=request.target.encode())

    async def scene() -> None:
        async with Gateway(origin=Origin(script)) as gateway:
            answers = await asyncio.gather(*(gateway.get(f"/{number}") for number in range(10)))
            assert [answer.body for answer in answers] == [b"/%d" % number for number in range(10)]

    asyncio.run(scene())


def test_a_script_that_fails_fails_the_test() -> None:
    def script(request: Recorded) -> Answer:
        raise AssertionError("the origin is not to be asked")

    async def scene() -> None:
        async with Gateway(origin=Origin(script)) as gateway:
            assert (await gateway.get()).status == 502

    with pytest.raises(AssertionError, match="not to be asked"):
        asyncio.run(scene())


def test_mistakes_in_a_configuration_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors):
        Gateway(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="no_such_kind"):
        Gateway(middleware=[{"kind": "no_such_kind"}])
