"""Tokens and sign-ins: who is let in, who is not, and what a forged request lacks."""

from __future__ import annotations

import hmac
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.console import tokens as module
from streams.console.sign_in import Attempts, csrf_token, session_key
from streams.console.token_file import TokenFile
from streams.console.tokens import (
    Role,
    Token,
    TokenProblem,
    check_token,
    hash_of,
    new_token,
    problem_of,
)
from streams.errors import TokenFileError

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
SECRET = "s" * 43


def made(role: Role = Role.VIEWER) -> tuple[str, Token]:
    return new_token(id="0123abcd", secret=SECRET, name="ana", role=role, now_ms=NOW_MS, days=90.0)


def test_a_token_is_good_until_it_expires_or_is_revoked() -> None:
    """Whoever has it is let in, to the millisecond, and by name and role."""
    text, kept = made(Role.OPERATOR)
    found = check_token(text, [kept], NOW_MS + 90 * DAY_MS - 1)
    assert isinstance(found, Token)
    assert (found.name, found.role) == ("ana", Role.OPERATOR)
    assert check_token(text, [kept], NOW_MS + 90 * DAY_MS) is TokenProblem.EXPIRED
    revoked = Token(**{n: getattr(kept, n) for n in kept.__struct_fields__} | {"revoked_ms": 1})
    assert check_token(text, [revoked], NOW_MS) is TokenProblem.REVOKED
    assert problem_of(kept, NOW_MS) is None


@given(st.text(max_size=80))
def test_no_other_text_is_a_token(text: str) -> None:
    """Guesses, fragments and rubbish are nobody's, whatever they look like."""
    _, kept = made()
    assert check_token(text, [kept], NOW_MS) is TokenProblem.UNKNOWN


@given(st.integers(0, 55), st.characters(codec="utf-8"))
def test_a_changed_character_forges_no_token(place: int, character: str) -> None:
    """A token with one other character is not the token."""
    text, kept = made()
    forged = text[:place] + character + text[place + 1 :]
    expected = kept if forged == text else TokenProblem.UNKNOWN
    assert check_token(forged, [kept], NOW_MS) == expected


def test_each_check_compares_hashes_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right, wrong, unknown and malformed tokens all go by one constant-time comparison."""
    calls: list[tuple[int, int]] = []

    def compared(a: str, b: str) -> bool:
        calls.append((len(a), len(b)))
        return hmac.compare_digest(a, b)

    class Recorded:
        compare_digest = staticmethod(compared)

    monkeypatch.setattr(module, "hmac", Recorded)
    text, kept = made()
    for tried in (text, text[:-1] + "x", text.replace("0123abcd", "ffffffff"), "rubbish", ""):
        check_token(tried, [kept], NOW_MS)
    assert calls == [(64, 64)] * 5


def test_only_a_hash_is_kept() -> None:
    """Neither the token nor its secret can be read back from what is kept."""
    text, kept = made()
    assert SECRET not in str(kept)
    assert kept.sha256 == hash_of(text)


@pytest.mark.parametrize(
    ("name", "days"),
    [("", 1), ("   ", 1), ("a\nb", 1), ("x" * 201, 1), ("a", 0), ("a", -1), ("a", 4000)],
)
def test_names_and_lives_that_cannot_be_are_refused(name: str, days: float) -> None:
    """A name stands in the log of decisions, so it is readable; a token does not live for ever."""
    with pytest.raises(ValueError, match=r"name must be|token lives"):
        new_token(id="0" * 8, secret=SECRET, name=name, role=Role.VIEWER, now_ms=0, days=days)


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Tokens are made, listed and taken back; the file can be read by nobody else."""
    file = TokenFile(tmp_path / "deep" / "tokens.json")
    assert file.tokens() == []
    text, token = file.create(name="ana", role=Role.OPERATOR, days=1)
    other, _ = file.create(name="vic", role=Role.VIEWER, days=1)
    assert text != other
    path = tmp_path / "deep" / "tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert text.rpartition("_")[2] not in path.read_text()
    # Another process sees it without being told.
    reader = TokenFile(path)
    assert [t.name for t in reader.tokens()] == ["ana", "vic"]
    assert isinstance(check_token(text, reader.tokens(), token.created_ms), Token)
    file.revoke(token.id)
    assert check_token(text, reader.tokens(), token.created_ms) is TokenProblem.REVOKED
    again = file.revoke(token.id)
    assert again.revoked_ms == reader.tokens()[0].revoked_ms
    with pytest.raises(TokenFileError, match="no token has the id 'nobody'"):
        file.revoke("nobody")


@pytest.mark.parametrize("content", ["", "no json", "{}", '[{"id": "x"}]', "[1]"])
def test_a_broken_file_lets_nobody_in_and_is_not_overwritten(tmp_path: Path, content: str) -> None:
    """It is said what is wrong with it, and a new token does not destroy what could be mended."""
    path = tmp_path / "tokens.json"
    path.write_text(content)
    file = TokenFile(path)
    with pytest.raises(TokenFileError, match="cannot be read"):
        file.tokens()
    with pytest.raises(TokenFileError, match="cannot be read"):
        file.create(name="ana", role=Role.VIEWER, days=1)
    assert path.read_text() == content


def test_kept_tokens_are_plain_json(tmp_path: Path) -> None:
    """The file can be looked at, and copied to another machine."""
    file = TokenFile(tmp_path / "tokens.json")
    file.create(name="ana", role=Role.VIEWER, days=1)
    [kept] = json.loads((tmp_path / "tokens.json").read_text())
    assert set(kept) == set(Token.__struct_fields__)


def test_a_csrf_token_goes_with_one_cookie() -> None:
    """It follows from the cookie, differs for each, and neither it nor the key gives it away."""
    assert csrf_token("a") == csrf_token("a") != csrf_token("b")
    assert len({csrf_token("a"), session_key("a"), "a"}) == 3


def test_too_many_failures_make_an_address_wait() -> None:
    """The eleventh attempt within five minutes must wait until the first is old enough."""
    attempts = Attempts(most=3, within_ms=1000, addresses=2)
    for at_ms in (0, 100, 200):
        assert attempts.wait_ms("a", at_ms) == 0
        attempts.failed("a", at_ms)
    assert attempts.wait_ms("a", 300) == 700
    assert attempts.wait_ms("b", 300) == 0
    assert attempts.wait_ms("a", 1000) == 0
    # Whoever tries from many addresses cannot fill the memory.
    for number in range(100):
        attempts.failed(f"x{number}", 2000)
    assert len(attempts._failures) == 2
