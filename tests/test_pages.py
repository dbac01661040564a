"""Error pages: read as they are, or a sentence that says why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.errors import StartError
from gateway.pages import MOST_BYTES, load_pages


@pytest.mark.parametrize(
    ("suffix", "content_type"),
    [
        (".html", b"text/html; charset=utf-8"),
        (".HTML", b"text/html; charset=utf-8"),
        (".json", b"application/json"),
        (".txt", b"text/plain; charset=utf-8"),
    ],
)
def test_the_suffix_tells_the_type(tmp_path: Path, suffix: str, content_type: bytes) -> None:
    (tmp_path / f"page{suffix}").write_text("é {status}")
    pages = load_pages({"404": f"page{suffix}"}, tmp_path)
    assert pages["404"].content_type == content_type
    assert pages["404"].render({"status": "404"}).decode() == "é 404"


def test_an_absolute_path_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    assert load_pages({"5xx": str(path)}, Path("/nowhere"))["5xx"].render({}) == b"x"
    assert load_pages({"5xx": str(path)})["5xx"].render({}) == b"x"
    assert load_pages({}) == {}


def refusal(path: Path) -> str:
    with pytest.raises(StartError) as caught:
        load_pages({"404": path.name}, path.parent)
    return str(caught.value)


def test_what_cannot_be_a_page_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    assert refusal(path) == f"error page 404: {path} can't be read: No such file or directory"
    path.write_bytes(b"\xff")
    assert refusal(path) == f"error page 404: {path} is not UTF-8"
    path.write_bytes(b"x" * MOST_BYTES)
    assert load_pages({"404": str(path)})
    path.write_bytes(b"x" * (MOST_BYTES + 1))
    assert refusal(path) == f"error page 404: {path} is larger than 1 MiB"
    path.unlink()
    path.mkdir()
    assert refusal(path) == f"error page 404: {path} is not a file"
    os.mkfifo(tmp_path / "b.html")
    assert refusal(tmp_path / "b.html").endswith("is not a file")
    assert "must end in .html, .htm, .json, .txt" in refusal(tmp_path / "a.php")
