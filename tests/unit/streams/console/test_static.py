"""The files of the page: small, complete, from nowhere else, and free of markup made of data."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from streams.console.web import STATIC

FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())
OURS = [path for path in FILES if path.parent == STATIC]
SCRIPTS = [path for path in OURS if path.suffix == ".js"]
SERVED = [path for path in FILES if path.suffix in {".html", ".css", ".js", ".svg"}]


def test_the_page_is_small() -> None:
    """All that a browser loads is less than 300 KB gzipped; half of it, to leave room."""
    size = sum(len(gzip.compress(path.read_bytes())) for path in SERVED)
    assert size < 150_000, f"{size} bytes"


def test_vendored_files_are_the_published_ones() -> None:
    """They are as their package has them: the sums stand beside them, with version and licence."""
    vendor = STATIC / "vendor"
    table = (vendor / "README.md").read_text()
    sums = dict(re.findall(r"\| `([0-9a-f]{64})` \| `([^`]+)` \|", table))
    for digest, name in sums.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest
    assert {path.name for path in vendor.iterdir()} == {*sums.values(), "README.md"}
    assert "MIT License" in (vendor / "uPlot.LICENSE").read_text()


def test_everything_that_is_named_is_there() -> None:
    """Each file that the page or a module loads exists, and each module is loaded."""
    page = (STATIC / "index.html").read_text()
    named = {Path(name) for name in re.findall(r'(?:src|href)="/static/([^"]+)"', page)}
    loaded = set(named)
    for path in SCRIPTS:
        pattern = r'(?:from |import\()"\./([^"]+)"'
        loaded |= {Path(name) for name in re.findall(pattern, path.read_text())}
    assert {name for name in loaded if not (STATIC / name).is_file()} == set()
    assert {path.relative_to(STATIC) for path in SCRIPTS} <= loaded


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere(path: Path) -> None:
    """No address of another machine: no fonts, no scripts, no counters."""
    found = re.findall(r"https?://[^\s\"'`)]+", path.read_text())
    assert [u for u in found if not u.startswith(("http://www.w3.org/", "http://localhost"))] == []


def test_the_page_has_no_inline_code() -> None:
    """The content security policy forbids it, so it would not run."""
    page = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]* src=)[^>]*>", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", page) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_data_never_become_markup(path: Path) -> None:
    """Text goes into the page as text: nothing in our scripts parses a string as HTML or code."""
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
        r"|\beval\b|new Function|setHTML|srcdoc|setAttribute\(\"(?:on|style)"
    )
    assert re.findall(forbidden, path.read_text()) == []


def test_modules_are_short() -> None:
    """The rule for modules holds for these too."""
    assert {path.name for path in SCRIPTS if path.read_text().count("\n") > 350} == set()
