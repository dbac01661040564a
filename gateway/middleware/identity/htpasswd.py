"""Files of users, as `htpasswd -B` writes them: a line `name:hash` for each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.middleware.identity.passwords import Hash, read_hash


def lines_of(data: bytes) -> Iterator[tuple[int, str, str]]:
    """The lines of a file that say something: number, name, and what is behind the colon, up to the next one. Raises
    ValueError with a sentence."""
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError:
            raise ValueError(f"line {number} is not UTF-8") from None
        if not line or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        if not colon or not name:
            raise ValueError(f"line {number} is not a name and a hash with a colon between them")
        if not name.isprintable() or name != name.strip():
            raise ValueError(f"line {number}: a name has no control characters, and no space at its end")
        yield number, name, rest.partition(":")[0].strip()


def users_of(data: bytes) -> Mapping[str, Hash]:
    """Users by name, at least one. Raises ValueError with a sentence that names line and user."""
    users: dict[str, Hash] = {}
    for number, name, text in lines_of(data):
        who = f'line {number}, user "{name}"'
        if name in users:
            raise ValueError(f"{who} is there a second time")
        try:
            users[name] = read_hash(text)
        except ValueError as error:
            raise ValueError(
                f'{who} has {error}; only bcrypt ("htpasswd -B") and Argon2id are safe enough to be read'
            ) from None
        except ImportError:
            raise ValueError(f'{who} has an Argon2id hash, for which the extra "argon2" is needed') from None
    if not users:
        raise ValueError("there are no users in it")
    return users
