"""The smallest useful plug-in: a header field on each request, and one on each response.

    middleware = [{ kind = "hooks", use = "my_hooks:Hooks", options = { greeting = "hello" } }]
"""

from gateway.plugins import Request, Response


class Hooks:
    # The options of the layer come by keyword. An option that is missing, or one too many, refuses the reload.
    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting

    async def rewrite_request(self, request: Request) -> None:
        request.headers["x-greeting"] = self.greeting

    async def modify_response(self, response: Response) -> None:
        response.headers["x-greeting"] = self.greeting
