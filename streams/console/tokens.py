"""Who may look, and who may act: tokens, kept as hashes.

A token is 256 random bits, so one round of SHA-256 is all the protection that its hash needs: there
is nothing to guess (NIST SP 800-63B, 5.1.2.2, on look-up secrets of enough entropy).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = [
    "SECRET_BYTES",
    "Role",
    "Token",
    "TokenProblem",
    "check_token",
    "hash_of",
    "new_token",
    "problem_of",
]

SECRET_BYTES = 32
_PREFIX = "dgc"
_SHAPE = re.compile(r"^dgc_([0-9a-f]{8})_([A-Za-z0-9_-]{43})$", re.ASCII)
_NOBODY = hashlib.sha256(b"no token has this hash").hexdigest()
"""Compared with where there is no such token, so that both ways do the same work."""


class Role(StrEnum):
    """What a token allows."""

    VIEWER = "viewer"
    """To see everything, also curated prompts."""
    OPERATOR = "operator"
    """To give commands, too."""


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token as it is kept: without its secret."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    """Of who has it: the actor of what they command."""
    role: Role
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    created_ms: int
    expires_ms: int
    revoked_ms: int | None = None


class TokenProblem(StrEnum):
    """Why a token does not let anybody in; for the log, not for who tries it."""

    EXPIRED = "expired"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """Malformed, never made, or with a wrong secret."""


def new_token(
    *,
    id: str,
    secret: str,
    name: str,
    role: Role,
    now_ms: int,
    days: float,
) -> tuple[str, Token]:
    """A token for somebody, and what is kept of it.

    Args:
        id: 8 random hex digits.
        secret: 32 random bytes in base64url, without padding.
        name: of who gets it.
        role: what it allows.
        now_ms: wall clock, ms since the epoch.
        days: its life.

    Raises:
        ValueError: a name that is empty or holds control characters, or a life that is none.
    """
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise ValueError("the name must be 1 to 200 printable characters")
    if not 0 < days <= 3650:
        raise ValueError("a token lives more than 0 and at most 3650 days")
    text = f"{_PREFIX}_{id}_{secret}"
    kept = Token(
        id=id,
        name=name,
        role=role,
        sha256=hash_of(text),
        created_ms=now_ms,
        expires_ms=now_ms + round(days * 86_400_000),
    )
    return text, kept


def hash_of(text: str) -> str:
    """What is kept of a token's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_token(text: str, tokens: Sequence[Token], now_ms: int) -> Token | TokenProblem:
    """Whose token it is, or why it is nobody's.

    Args:
        text: as somebody gave it.
        tokens: all that are kept.
        now_ms: wall clock, ms since the epoch.
    """
    shape = _SHAPE.match(text)
    found = None
    if shape is not None:
        found = next((t for t in tokens if t.id == shape[1]), None)
    same = hmac.compare_digest(
        hash_of(text if shape is not None else ""), found.sha256 if found else _NOBODY
    )
    if found is None or not same:
        return TokenProblem.UNKNOWN
    return problem_of(found, now_ms) or found


def problem_of(token: Token, now_ms: int) -> TokenProblem | None:
    """Whether a token that was right is still good."""
    if token.revoked_ms is not None:
        return TokenProblem.REVOKED
    return TokenProblem.EXPIRED if now_ms >= token.expires_ms else None
