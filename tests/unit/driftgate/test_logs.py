"""Log lines: text for people, JSON with what they are about for programs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import msgspec
import pytest

from driftgate.errors import SettingsError
from driftgate.logs import configure_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Puts the root logger back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_holds_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, with the fields that were given, and a traceback in one piece."""
    configure_logging({"DRIFTGATE_LOG_FORMAT": "json"})
    log = logging.getLogger("driftgate.test")
    log.info("rolled back %s", "green", extra={"service": "shop", "correlationid": "r-1"})
    try:
        raise ValueError("line\nbreak")
    except ValueError:
        log.exception("it failed")
    first, second = capsys.readouterr().err.splitlines()
    found = msgspec.json.decode(first)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "INFO",
        "logger": "driftgate.test",
        "message": "rolled back green",
        "service": "shop",
        "correlationid": "r-1",
    }
    assert "ValueError: line\nbreak" in msgspec.json.decode(second)["traceback"]


def test_text_is_what_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, logger, message; what a line is about is in the message."""
    configure_logging({})
    logging.getLogger("driftgate.test").info("hello", extra={"service": "shop"})
    line = capsys.readouterr().err
    assert line.endswith("Z INFO driftgate.test: hello\n")


@pytest.mark.parametrize("name", ["DRIFTGATE_LOG_FORMAT", "DRIFTGATE_LOG_LEVEL"])
def test_an_unknown_setting_is_refused(name: str) -> None:
    """The message says which values there are."""
    with pytest.raises(SettingsError, match=f"{name}=.* is none of"):
        configure_logging({name: "loud"})
