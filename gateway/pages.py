"""Error pages of the configuration: files, read once when everything is assembled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.errors import StartError
from gateway.refusals import Page

MOST_BYTES = 1024 * 1024
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}


def load_pages(files: Mapping[str, str], base: Path | None = None) -> dict[str, Page]:
    """The pages by status or class, as `Style` has them. base: where relative paths start. Raises StartError."""
    return {status: _load(status, (base or Path()) / path) for status, path in files.items()}


def _load(status: str, path: Path) -> Page:
    what = f"error page {status}: {path}"
    content_type = CONTENT_TYPES.get(path.suffix.lower())
    if content_type is None:
        raise StartError(f"{what} must end in {', '.join(CONTENT_TYPES)}: that is how its type is told")
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise StartError(f"{what} is not a file")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise StartError(f"{what} can't be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise StartError(f"{what} is larger than 1 MiB")
    try:
        return Page(content_type, data.decode())
    except UnicodeDecodeError:
        raise StartError(f"{what} is not UTF-8") from None
