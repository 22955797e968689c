"""Lets people in: tokens become sessions, sessions say who asks."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

import msgspec

from streams.console.sign_in import Attempts, Session, session_key
from streams.console.store import Store
from streams.console.token_file import TokenFile
from streams.console.tokens import SECRET_BYTES, Token, TokenProblem, check_token, problem_of

__all__ = ["Gatekeeper", "SignedIn", "TooManyAttemptsError", "WrongTokenError"]

log = logging.getLogger("driftgate.console")


class WrongTokenError(Exception):
    """Nobody is let in by this; why is said in the log only."""


class TooManyAttemptsError(Exception):
    """An address must wait.

    Args:
        wait_s: for so long.
    """

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many failed sign-ins: try again in {wait_s} s")
        self.wait_s = wait_s


class SignedIn(msgspec.Struct, frozen=True):
    """Who asks."""

    session: Session
    token: Token


class Gatekeeper:
    """Who may come in, and who is in.

    Args:
        tokens: who may.
        store: keeps who is, over a restart.
        session_ms: life of a sign-in.
        now_ms: wall clock, ms since the epoch.
        attempts: patience with wrong tokens.
    """

    def __init__(
        self,
        tokens: TokenFile,
        store: Store,
        *,
        session_ms: int,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        attempts: Attempts | None = None,
    ) -> None:
        self._tokens = tokens
        self._store = store
        self._session_ms = session_ms
        self._now_ms = now_ms
        self._attempts = attempts or Attempts()
        self.failures = 0

    async def sign_in(self, text: str, address: str) -> tuple[str, SignedIn]:
        """Let somebody in; the secret of their cookie, and who they are.

        Args:
            text: the token.
            address: where it comes from.

        Raises:
            WrongTokenError: forged, expired, revoked.
            TooManyAttemptsError: too many of those from this address.
            TokenFileError: the tokens cannot be read.
        """
        now_ms = self._now_ms()
        wait_ms = self._attempts.wait_ms(address, now_ms)
        if wait_ms > 0:
            raise TooManyAttemptsError(-(-wait_ms // 1000))
        found = check_token(text, await asyncio.to_thread(self._tokens.tokens), now_ms)
        if isinstance(found, TokenProblem):
            self.failures += 1
            self._attempts.failed(address, now_ms)
            log.warning("a sign-in from %s failed: the token is %s", address, found)
            raise WrongTokenError
        secret = secrets.token_urlsafe(SECRET_BYTES)
        session = Session(
            key=session_key(secret),
            token_id=found.id,
            expires_ms=min(found.expires_ms, now_ms + self._session_ms),
        )
        await asyncio.to_thread(self._store.put_session, session)
        log.info("%s (%s, token %s) signed in from %s", found.name, found.role, found.id, address)
        return secret, SignedIn(session, found)

    async def who(self, secret: str | None) -> SignedIn | None:
        """Whose cookie it is; None when nobody's, or not any more.

        Raises:
            TokenFileError: the tokens cannot be read.
        """
        if not secret:
            return None
        session = await asyncio.to_thread(self._store.session, session_key(secret))
        now_ms = self._now_ms()
        if session is None or now_ms >= session.expires_ms:
            return None
        tokens = await asyncio.to_thread(self._tokens.tokens)
        token = next((t for t in tokens if t.id == session.token_id), None)
        if token is None or problem_of(token, now_ms) is not None:
            return None
        return SignedIn(session, token)

    def life_s(self, signed: SignedIn) -> int:
        """How long a sign-in lasts from now on, in seconds."""
        return max(1, (signed.session.expires_ms - self._now_ms()) // 1000)

    async def sign_out(self, signed: SignedIn) -> None:
        """End a sign-in."""
        await asyncio.to_thread(self._store.drop_session, signed.session.key)
        log.info("%s signed out", signed.token.name)
