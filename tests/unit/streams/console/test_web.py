"""The web application: who sees what, who may do what, and what every answer carries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.log import Command, OperatorCommand
from schemas.rollout import Phase, RolloutState
from streams.console.tokens import Role
from streams.errors import CommandRefusedError, CommandUnansweredError
from tests.support.console import BASE, Desk, cookie_flags
from tests.support.folding import T0_MS
from tests.support.samples import sample

PAUSE = {"service": "shop", "command": "pause"}
PROTECTED = ["/api/live?service=shop", f"/api/history?service=shop&from={T0_MS - 1000}&to={T0_MS}"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.store.close()


async def test_every_answer_has_the_headers(desk: Desk) -> None:
    """No inline code, nothing from elsewhere, in no frame, on pages, data and errors alike."""
    async with desk.browser() as browser:
        for path in ("/", "/static/main.js", "/api/session", "/nowhere", *PROTECTED):
            answer = await browser.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "require-trusted-types-for 'script'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "server" not in answer.headers


@pytest.mark.parametrize("path", PROTECTED)
async def test_data_are_for_those_who_have_signed_in(desk: Desk, path: str) -> None:
    """Without a session, and with a made-up one, there is nothing to see."""
    async with desk.browser() as browser:
        assert (await browser.get(path)).status_code == 401
        browser.cookies.set("driftgate_session", "x" * 43)
        answer = await browser.get(path)
        assert (answer.status_code, answer.json()) == (401, {"error": "sign in first"})


async def test_a_token_opens_the_page(desk: Desk) -> None:
    """Whoever signs in is known by name and role, and is shown what there is."""
    browser = desk.browser()
    answer = await desk.sign_in(browser, await desk.token(Role.VIEWER, "vic"))
    assert (answer.status_code, answer.json()) == (200, {"name": "vic", "role": "viewer"})
    session = (await browser.get("/api/session")).json()
    assert (session["signed_in"], session["name"], session["role"]) == (True, "vic", "viewer")
    found = await browser.get(PROTECTED[1])
    assert found.status_code == 200
    assert found.json()["windows"] == {}
    assert found.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("kind", ["forged", "expired", "revoked", "rubbish", "hostile"])
async def test_other_tokens_open_nothing(desk: Desk, kind: str) -> None:
    """A forged, expired or revoked token gets the same answer, which does not say which it is."""
    good = await desk.token()
    token = {
        "forged": good[:-5] + "AAAAA",
        "rubbish": "hello",
        "hostile": "<script>alert(1)</script>",
        "expired": good,
        "revoked": good,
    }[kind]
    if kind == "expired":
        desk.now_ms = (await desk.kept())[0].expires_ms
    elif kind == "revoked":
        await desk.revoke_last()
    browser = desk.browser()
    answer = await desk.sign_in(browser, token)
    assert answer.status_code == 401
    assert answer.json()["error"].startswith("this token is not valid")
    assert (await browser.get(PROTECTED[1])).status_code == 401


async def test_the_cookie_is_kept_from_scripts_and_other_sites(desk: Desk) -> None:
    """On localhost HttpOnly and SameSite=Strict; over TLS Secure, with the prefix that says so."""
    token = await desk.token()
    async with desk.browser() as browser:
        flags = cookie_flags(await desk.sign_in(browser, token))
        assert flags["name"] == "driftgate_session"
        assert "httponly" in flags
        assert "secure" not in flags
        assert (flags["samesite"], flags["path"]) == ("strict", "/")
        assert int(flags["maxage"]) <= 3600 + 10
    async with desk.browser("https://console.example.org") as browser:
        flags = cookie_flags(await desk.sign_in(browser, token))
        assert flags["name"] == "__Host-driftgate_session"
        assert {"httponly", "secure"} <= set(flags)
        assert flags["samesite"] == "strict"


async def test_nobody_signs_in_over_plain_http_from_elsewhere(desk: Desk) -> None:
    """The token would travel in the clear: it is said what to do instead, and no cookie is set."""
    token = await desk.token()
    async with desk.browser("http://console.example.org") as browser:
        session = await browser.get("/api/session")
        assert session.json()["insecure"]
        assert "set-cookie" not in session.headers
        answer = await browser.post("/api/sign-in", json={"token": token})
        assert answer.status_code == 403
        assert "SSH tunnel" in answer.json()["error"]


async def test_a_sign_in_begins_a_session_of_its_own(desk: Desk) -> None:
    """A cookie that somebody was given before is not the one that he has afterwards."""
    browser = desk.browser()
    before = cookie_flags(await browser.get("/api/session"))["value"]
    after = cookie_flags(await desk.sign_in(browser, await desk.token()))["value"]
    assert before != after
    assert not (
        await browser.get("/api/session", headers={"cookie": f"driftgate_session={before}"})
    ).json()["signed_in"]


@pytest.mark.parametrize("path", ["/api/sign-in", "/api/sign-out", "/api/commands"])
@pytest.mark.parametrize(
    "headers",
    [
        {"x-csrf-token": ""},
        {"x-csrf-token": "0" * 64},
        {"x-csrf-token": "é"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_a_forged_request_does_nothing(
    desk: Desk, path: str, headers: dict[str, str]
) -> None:
    """A POST without the right CSRF token, or from another site, is refused before it is read."""
    browser = await desk.signed_in()
    sent = {name: value.encode() for name, value in headers.items()}
    answer = await browser.post(path, json=PAUSE, headers=sent)
    assert answer.status_code == 403
    assert "forged" in answer.json()["error"]
    assert desk.asked == []
    assert (await browser.get("/api/session")).json()["signed_in"]


async def test_the_token_of_another_session_is_no_token(desk: Desk) -> None:
    """Somebody who is signed in cannot forge requests of somebody else."""
    one, other = await desk.signed_in(), await desk.signed_in(name="eve")
    theirs = {"x-csrf-token": other.headers["x-csrf-token"]}
    assert (await one.post("/api/commands", json=PAUSE, headers=theirs)).status_code == 403


async def test_too_many_wrong_tokens_make_an_address_wait(desk: Desk) -> None:
    """Also for a right one; others are not held up, and after a while it may try again."""
    token, browser = await desk.token(), desk.browser()
    for _ in range(3):
        assert (await desk.sign_in(browser, "wrong")).status_code == 401
    answer = await desk.sign_in(browser, token)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 300
    async with desk.browser(address="10.0.0.1") as elsewhere:
        assert (await desk.sign_in(elsewhere, token)).status_code == 200
    desk.now_ms += 300_000
    assert (await desk.sign_in(browser, token)).status_code == 200


async def test_an_operator_acts_under_his_name(desk: Desk) -> None:
    """The command carries the token's name as its actor, and the monitor's answer comes back."""
    browser = await desk.signed_in(Role.OPERATOR, "ana")
    answer = await browser.post("/api/commands", json={**PAUSE, "reason": " incident 812 "})
    assert answer.status_code == 200
    assert answer.json()["decision"]["type"] == "rollout.advanced"
    [asked] = desk.asked
    assert (asked.actor, asked.command, asked.reason) == ("ana", Command.PAUSE, "incident 812")
    assert len(asked.id) == 32
    again = await browser.post(
        "/api/commands", json={**PAUSE, "command": "acknowledge", "alert_key": "silence/shop"}
    )
    assert again.json()["alert"]["actor"] == "ana"
    assert desk.asked[1].alert_key == "silence/shop"


async def test_nobody_acts_under_another_name(desk: Desk) -> None:
    """Whoever says who he is in the request is refused: that is the token's to say."""
    browser = await desk.signed_in()
    answer = await browser.post("/api/commands", json={**PAUSE, "actor": "somebody else"})
    assert answer.status_code == 400
    assert "actor" in answer.json()["error"]


async def test_a_viewer_may_look_and_not_act(desk: Desk) -> None:
    """Commands of every kind are refused, and none is sent."""
    browser = await desk.signed_in(Role.VIEWER, "vic")
    for command in Command:
        answer = await browser.post("/api/commands", json={"service": "shop", "command": command})
        assert answer.status_code == 403
        assert "vic may look and not act" in answer.json()["error"]
    assert desk.asked == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 10_000, 400),
        (b'{"service": "shop"}', 400),
        (b'{"service": "shop", "command": "destroy"}', 400),
        (b'{"service": "shop", "command": "start"}', 400),
        (b'{"service": "", "command": "pause"}', 400),
        (b'{"service": "shop", "command": "pause", "reason": "' + b"x" * 3000 + b'"}', 400),
        (b'{"service": "shop", "command": "pause", "reason": "' + b"x" * 30_000 + b'"}', 413),
        (b"\xff", 400),
    ],
)
async def test_bad_requests_get_an_answer(desk: Desk, body: bytes, status: int) -> None:
    """What cannot be read is refused with a sentence, and nothing is sent to the monitor."""
    browser = await desk.signed_in()
    headers = {"content-type": "application/json"}
    answer = await browser.post("/api/commands", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert desk.asked == []


async def test_only_json_is_read(desk: Desk) -> None:
    """A form of another site can send no JSON."""
    browser = await desk.signed_in()
    answer = await browser.post("/api/commands", data=PAUSE)
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CommandRefusedError("refused: pause: nothing is progressing: the service is idle"), 422),
        (CommandUnansweredError("no answer within 15 s: is a monitor running"), 504),
    ],
)
async def test_a_refusal_is_shown_as_it_is(desk: Desk, error: Exception, status: int) -> None:
    """The monitor's own words reach whoever asked."""

    async def refuse(_: OperatorCommand) -> Any:
        raise error

    desk.answer = refuse
    browser = await desk.signed_in()
    answer = await browser.post("/api/commands", json=PAUSE)
    assert (answer.status_code, answer.json()) == (status, {"error": str(error)})


@pytest.mark.parametrize(
    ("command", "seen", "status"),
    [
        ("promote", 4, 409), ("promote", None, 409), ("promote", 5, 200),
        ("resume", 4, 409), ("retry", 4, 409), ("abort", 4, 200), ("pause", None, 200),
    ],
)  # fmt: skip
async def test_whoever_goes_forward_has_seen_where_he_is(
    desk: Desk, command: str, seen: int | None, status: int
) -> None:
    """A promotion of a stage that is over is refused; what stops a rollout is always meant."""
    state = msgspec.structs.replace(
        sample(RolloutState), service="shop", revision=5, phase=Phase.PROGRESSING
    )
    desk.model.take(state, T0_MS)
    browser = await desk.signed_in()
    asked = {"service": "shop", "command": command, "revision": seen}
    answer = await browser.post("/api/commands", json=asked)
    assert answer.status_code == status
    assert bool(desk.asked) == (status == 200)


@pytest.mark.parametrize(
    "query",
    ["", "service=shop", "service=shop&from=1", "service=shop&from=a&to=2", "from=1&to=2",
     "service=shop&from=5&to=5", "service=shop&from=5&to=1", "service=shop&from=-1&to=2",
     f"service=shop&from=0&to={400 * 86_400_000}", f"service={'x' * 101}&from=1&to=2",
     "service=shop&from=9999999999999999999&to=99999999999999999999"],
)  # fmt: skip
async def test_ranges_that_are_none_are_refused(desk: Desk, query: str) -> None:
    """A range is two times in order, no longer than a year; a service has a name."""
    browser = await desk.signed_in()
    answer = await browser.get(f"/api/history?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_signing_out_ends_the_session(desk: Desk) -> None:
    """The cookie is worth nothing afterwards, also to whoever has copied it."""
    browser = await desk.signed_in()
    stolen = {"cookie": f"driftgate_session={browser.cookies['driftgate_session']}"}
    assert (await browser.post("/api/sign-out")).status_code == 200
    async with desk.browser() as thief:
        assert (await thief.get(PROTECTED[1], headers=stolen)).status_code == 401


async def test_a_session_ends_with_its_time_and_its_token(desk: Desk) -> None:
    """After its hours, and with a token that is taken back, everybody is out."""
    browser = await desk.signed_in()
    desk.now_ms += 3_600_000
    assert (await browser.get(PROTECTED[1])).status_code == 401
    other = await desk.signed_in(name="vic")
    assert (await other.get(PROTECTED[1])).status_code == 200
    await desk.revoke_last()
    assert (await other.get(PROTECTED[1])).status_code == 401


async def test_a_session_outlives_the_process(desk: Desk, tmp_path: Path) -> None:
    """A restart of the console signs nobody out."""
    browser = await desk.signed_in()
    cookie = {"cookie": f"driftgate_session={browser.cookies['driftgate_session']}"}
    desk.store.close()
    again = await asyncio.to_thread(Desk, tmp_path)
    try:
        async with again.browser() as same:
            assert (await same.get(PROTECTED[1], headers=cookie)).status_code == 200
    finally:
        again.store.close()


async def test_tokens_that_cannot_be_read_let_nobody_in(desk: Desk, tmp_path: Path) -> None:
    """A broken file of tokens is an error of the console, and opens nothing."""
    browser = await desk.signed_in()
    await asyncio.to_thread((tmp_path / "tokens.json").write_text, "broken")
    answer = await browser.get(PROTECTED[1])
    assert answer.status_code == 503
    assert "cannot read its tokens" in answer.json()["error"]


async def test_a_revoked_token_ends_its_stream(desk: Desk) -> None:
    """An open page is told that it is signed out, and gets nothing more."""
    browser = await desk.signed_in()
    text = ""

    async def look() -> None:
        nonlocal text
        # The in-process transport hands a stream over when it has ended.
        text = (await browser.get(PROTECTED[0])).text

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.2)
    assert not looking.done()
    await desk.revoke_last()
    async with asyncio.timeout(10):
        await looking
    assert text.startswith("retry: 1000\n\nevent: ")
    assert text.endswith("event: signed_out\ndata: {}\n\n")
    assert "event: gates\ndata: {" in text
    assert desk.hub.pages == 0


async def test_health_is_told_to_everybody(desk: Desk) -> None:
    """A supervisor needs no token; readiness says what is missing."""
    async with desk.browser() as browser:
        assert (await browser.get("/healthz")).text == "ok\n"
        assert (await browser.get("/readyz")).status_code == 200
        desk.trouble = "the broker is away: connection refused"
        answer = await browser.get("/readyz")
        assert (answer.status_code, answer.text) == (503, f"{desk.trouble}\n")
        assert (await browser.get("/metrics")).status_code == 200


async def test_what_is_not_there_is_not_found(desk: Desk) -> None:
    """No path leads out of the folder of the page."""
    async with desk.browser() as browser:
        for path in ("/static/../web.py", "/static/%2e%2e/web.py", "/static/nothing.js", "/api"):
            assert (await browser.get(f"{BASE}{path}")).status_code == 404


async def test_files_are_sent_packed_and_once(desk: Desk) -> None:
    """A browser that has a file is told so; one that cannot unpack gets it plain."""
    async with desk.browser() as browser:
        first = await browser.get("/static/main.js")
        assert first.headers["content-encoding"] == "gzip"
        assert first.headers["content-type"].startswith("text/javascript")
        again = await browser.get(
            "/static/main.js", headers={"if-none-match": first.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        plain = await browser.get("/static/main.js", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == first.content


@pytest.mark.parametrize(
    ("cookie", "found"), [("dark", "dark"), ("light", "light"), ("auto", None), ("<b>", None)]
)
async def test_a_theme_that_was_chosen_is_there_from_the_first_frame(
    desk: Desk, cookie: str, found: str | None
) -> None:
    """Whoever works in the dark is not dazzled by a page that is only then told to be dark."""
    async with desk.browser() as browser:
        page = await browser.get("/", headers={"cookie": f"driftgate_theme={cookie}"})
        begin = f'<html lang="en" data-theme="{found}">' if found else '<html lang="en">'
        assert begin in page.text
