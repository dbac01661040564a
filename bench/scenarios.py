"""What is asked of every proxy: the request, the answer that must come, over how many connections."""

from dataclasses import dataclass

from bench.origin import LARGE_LENGTH, SMALL_BODY
from bench.token import TOKEN

BROWSER_FIELDS = (
    "Host: shop.example.com\r\n"
    "Connection: keep-alive\r\n"
    "Cache-Control: max-age=0\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
    "Referer: https://shop.example.com/items?sort=price&page=2\r\n"
    "Cookie: session=7f9c2ba4e88f827d616045507605853e; theme=dark; consent=1; basket=3f1a9c\r\n"
    "Sec-Fetch-Dest: document\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
)


def get(target: str, fields: str = BROWSER_FIELDS) -> bytes:
    return f"GET {target} HTTP/1.1\r\n{fields}\r\n".encode()


def post(target: str, length: int) -> bytes:
    head = f"POST {target} HTTP/1.1\r\n{BROWSER_FIELDS}Content-Type: application/octet-stream\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode() + b"\x2a" * length


@dataclass(frozen=True)
class Scenario:
    """One kind of load: every connection sends its next request as soon as the last one is answered."""

    title: str
    request: bytes
    answer_length: int  # of the body, exactly
    connections: int


SMALL_GET = get("/items/42?sort=price&page=3")
BEARING = get("/items/42?sort=price&page=3", f"{BROWSER_FIELDS}Authorization: Bearer {TOKEN}\r\n")

SCENARIOS = {
    "small": Scenario("Small GET, 50 connections", SMALL_GET, len(SMALL_BODY), 50),
    "token": Scenario("Small GET with a bearer token, 50 connections", BEARING, len(SMALL_BODY), 50),
    "download": Scenario("1 MiB download, 20 connections", get("/large"), LARGE_LENGTH, 20),
    "upload": Scenario("1 MiB upload, 20 connections", post("/upload", LARGE_LENGTH), len(f"{LARGE_LENGTH}\n"), 20),
    "conns1000": Scenario("Small GET, 1,000 connections", SMALL_GET, len(SMALL_BODY), 1000),
    "conns5000": Scenario("Small GET, 5,000 connections", SMALL_GET, len(SMALL_BODY), 5000),
}
