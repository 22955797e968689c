"""The file that tokens are kept in: read by the console, written by `driftgate token`."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import msgspec

from streams.console.tokens import SECRET_BYTES, Role, Token, new_token
from streams.errors import TokenFileError

__all__ = ["TokenFile"]

_LOCK_S = 10.0


class TokenFile:
    """Tokens as JSON, readable by their owner alone, replaced as a whole.

    Args:
        path: of the file; its folder is made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int, int], list[Token]] | None = None

    def tokens(self) -> list[Token]:
        """All of them, read anew when the file has changed.

        Raises:
            TokenFileError: it cannot be read, or holds something else.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TokenFileError(f"{self._path}: {error}") from error
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
        if self._read is None or self._read[0] != version:
            self._read = (version, self._load())
        return self._read[1]

    def create(self, *, name: str, role: Role, days: float) -> tuple[str, Token]:
        """Make a token; its text, which is nowhere else, and what is kept of it.

        Raises:
            TokenFileError: the file cannot be written.
            ValueError: a name or a life that cannot be.
        """
        text, token = new_token(
            id=secrets.token_hex(4),
            secret=secrets.token_urlsafe(SECRET_BYTES),
            name=name,
            role=role,
            now_ms=time.time_ns() // 1_000_000,
            days=days,
        )
        self._change(lambda tokens: [*tokens, token])
        return text, token

    def revoke(self, id: str) -> Token:
        """Take a token back: whoever is signed in by it is signed out.

        Raises:
            TokenFileError: there is none with such an id, or the file cannot be written.
        """
        now_ms = time.time_ns() // 1_000_000

        def change(tokens: list[Token]) -> list[Token]:
            if all(token.id != id for token in tokens):
                raise TokenFileError(f"no token has the id {id!r}: see `driftgate token list`")
            return [
                msgspec.structs.replace(t, revoked_ms=now_ms)
                if t.id == id and t.revoked_ms is None
                else t
                for t in tokens
            ]

        return next(t for t in self._change(change) if t.id == id)

    def _load(self) -> list[Token]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Token])
        except (OSError, msgspec.MsgspecError) as error:
            raise TokenFileError(
                f"{self._path} cannot be read: {error}; mend it, or remove it and make new tokens"
            ) from error

    def _change(self, change: Callable[[list[Token]], list[Token]]) -> list[Token]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with filelock.FileLock(f"{self._path}.lock", timeout=_LOCK_S):
                changed = change(self._load() if self._path.exists() else [])
                handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".tokens-")
                # mkstemp makes it readable by its owner alone.
                with os.fdopen(handle, "wb") as file:
                    file.write(msgspec.json.format(msgspec.json.encode(changed), indent=1))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self._path)
        except (OSError, filelock.Timeout) as error:
            raise TokenFileError(f"{self._path} cannot be written: {error}") from error
        return changed
