"""No card number leaves the house: long runs of digits are masked in text bodies while they stream.

    middleware = [{ kind = "hooks", use = "masking:Masking", options = { least = 13, shown = 4 } }]

It shows: a body that is changed part by part. Where parts begin and end means nothing, and a number may begin in one
and end in the next. So digits at the end of a part are kept until the next part, or the end, comes: a few bytes in
`request.state`, never in `self`, which all requests share.
"""

import re

from gateway.plugins import Response

TEXT = ("text/", "application/json", "application/xml", "application/x-ndjson")
DIGITS = b"0123456789"


class Masking:
    """least: how many digits make a number that is masked; shown: how many of its last ones stay."""

    def __init__(self, least: int = 13, shown: int = 4) -> None:
        if not 0 <= shown < least:
            raise ValueError("expected shown < least")
        self.least, self.shown = least, shown
        self.numbers = re.compile(rb"[0-9]{%d,}" % least)

    async def modify_response(self, response: Response) -> None:
        kind = response.headers.get("content-type", "") or ""
        if not kind.lower().startswith(TEXT):
            response.transform = False  # its length stays known, and it costs nothing
        elif "content-encoding" in response.headers:
            # Endpoints are asked not to compress where a layer reads bodies. What comes compressed can't be looked
            # into, and what can't be looked into does not go out.
            response.status = 502
            response.replace("the answer can't be checked\n", content_type="text/plain")

    def transform_response_body(self, chunk: bytes, response: Response) -> bytes:
        state = response.request.state
        text: bytes = state.get("held", b"") + chunk
        # Whether the digits that `text` begins with belong to a number whose beginning has gone out already, masked.
        goes_on: bool = state.get("goes_on", False)
        done = text.rstrip(DIGITS) if chunk else text  # b"" is the end: nothing will follow
        held = text[len(done) :]
        first = len(done) - len(done.lstrip(DIGITS)) if goes_on else 0
        made = self.masked(done[:first]) + self.numbers.sub(lambda number: self.masked(number[0]), done[first:])
        # What is held stays short, however many digits come: once there are enough, only the last ones matter.
        state["goes_on"] = (goes_on and not done) or len(held) >= self.least
        if state["goes_on"]:
            split = max(0, len(held) - self.shown)
            made += b"*" * split
            held = held[split:]
        state["held"] = held
        return made

    def masked(self, digits: bytes) -> bytes:
        split = max(0, len(digits) - self.shown)
        return b"*" * split + digits[split:]
