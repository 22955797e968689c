"""Sessions after a sign-in, protection against forged requests, and patience with wrong tokens."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict

import msgspec

__all__ = ["Attempts", "Session", "csrf_token", "session_key"]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has signed in; kept under the hash of the secret that the cookie holds."""

    key: str
    token_id: str
    expires_ms: int


def session_key(secret: str) -> str:
    """What a session is kept under: the database does not hold what a cookie must."""
    return hashlib.sha256(f"session:{secret}".encode()).hexdigest()


def csrf_token(secret: str) -> str:
    """What each POST must carry beside the cookie (synchroniser token, derived).

    It follows from the cookie's secret, which other sites can neither read nor choose, and does not
    give it away.
    """
    return hmac.new(secret.encode(), b"driftgate console csrf", hashlib.sha256).hexdigest()


class Attempts:
    """Counts failed sign-ins by address, and makes an address wait that has too many.

    Args:
        most: failures within the time that are borne.
        within_ms: the time.
        addresses: so many are remembered, the last ones.
    """

    def __init__(self, most: int = 10, within_ms: int = 300_000, addresses: int = 10_000) -> None:
        self._most = most
        self._within_ms = within_ms
        self._addresses = addresses
        self._failures: OrderedDict[str, list[int]] = OrderedDict()

    def wait_ms(self, address: str, now_ms: int) -> int:
        """How long an address must wait before it may try again; 0 when it may."""
        recent = self._recent(address, now_ms)
        return 0 if len(recent) < self._most else recent[-self._most] + self._within_ms - now_ms

    def failed(self, address: str, now_ms: int) -> None:
        """Count a failure."""
        self._failures[address] = [*self._recent(address, now_ms), now_ms][-self._most :]
        self._failures.move_to_end(address)
        while len(self._failures) > self._addresses:
            self._failures.popitem(last=False)

    def _recent(self, address: str, now_ms: int) -> list[int]:
        oldest_ms = now_ms - self._within_ms
        return [at_ms for at_ms in self._failures.get(address, []) if at_ms > oldest_ms]
