"""A streaming reverse proxy of aiohttp's server and client: PORT ORIGIN_PORT."""

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict

# What belongs to one connection; each side writes its own.
HOP_BY_HOP = ("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade")
SESSION = web.AppKey("session", aiohttp.ClientSession)


def passed_on(fields: "CIMultiDict[str]") -> "CIMultiDict[str]":
    for name in HOP_BY_HOP:
        fields.popall(name, None)
    return fields


def application(origin: str) -> web.Application:
    async def session(app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as app[SESSION]:
            yield

    async def forward(request: web.Request) -> web.StreamResponse:
        fields = passed_on(CIMultiDict(request.headers))
        fields.add("X-Forwarded-For", request.remote or "")
        body = request.content if request.body_exists else None
        async with request.app[SESSION].request(
            request.method, origin + request.raw_path, headers=fields, data=body, allow_redirects=False
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=passed_on(CIMultiDict(answer.headers))
            )
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(
        application(f"http://127.0.0.1:{sys.argv[2]}"),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        backlog=4096,
        access_log=None,
        keepalive_timeout=600,
    )
