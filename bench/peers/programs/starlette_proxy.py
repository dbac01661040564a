"""The reverse proxy that one finds in many code bases: Starlette, one ``httpx.AsyncClient``, a streamed answer."""

import contextlib
import os
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
client = httpx.AsyncClient(base_url=os.environ.get("ORIGIN", ""))


async def forward(request: Request) -> StreamingResponse:
    url = httpx.URL(path=request.url.path, query=request.url.query.encode())
    has_body = request.method not in ("GET", "HEAD")
    outgoing = client.build_request(
        request.method, url, headers=request.headers.raw, content=request.stream() if has_body else None
    )
    answer = await client.send(outgoing, stream=True)
    return StreamingResponse(
        answer.aiter_raw(),
        status_code=answer.status_code,
        headers=answer.headers,
        background=BackgroundTask(answer.aclose),
    )


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with client:
        yield


app = Starlette(routes=[Route("/{path:path}", forward, methods=METHODS)], lifespan=lifespan)
