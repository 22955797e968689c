"""Sets the project up in its own folder, or writes its lock. Called by the Makefile.

`setup` makes `.venv` hold exactly what `requirements.lock` names, and the project itself, editable.
`lock` resolves `pyproject.toml` into `requirements.lock`. `uv` only gets the installer ready.

Only the standard library is used, since this runs before anything is installed, and only what
Python 3.7 can parse, so that an old interpreter gets to read which one is needed. The installer is
`uv`: the one on the PATH, else the locked one from the package index, in `.tools`. Nothing outside
of the project's folder is written, except uv's cache.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Mapping, Sequence  # noqa: UP035 - Python 3.7 must be able to read on

__all__ = ["index_settings", "locked_requirement", "main"]

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
TOOLS = ROOT / ".tools"
STAMP = VENV / ".driftgate-setup"

OLDEST_PYTHON = (3, 11)
# The locked packages have wheels for Linux up to this one; a newer one would need compilers.
NEWEST_PYTHON = (3, 14)
# The oldest uv that knows every option used here.
OLDEST_UV = (0, 8)

# Settings that aim an installer at another environment, or add rules to what the lock fixes.
# Everything else of the user's (indexes, proxies, certificates, caches) is left as it is.
MISLEADING = (
    "CONDA_PREFIX",
    "PIP_CONSTRAINT",
    "PIP_PREFIX",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONPATH",
    "UV_BUILD_CONSTRAINT",
    "UV_CONSTRAINT",
    "UV_NO_EDITABLE",
    "UV_OVERRIDE",
    "UV_PREFIX",
    "UV_PROJECT",
    "UV_PROJECT_ENVIRONMENT",
    "UV_PYTHON",
    "UV_REQUIRE_HASHES",
    "UV_SYSTEM_PYTHON",
    "UV_TARGET",
    "UV_WORKING_DIR",
    "VIRTUAL_ENV",
)


class SetupError(Exception):
    """What went wrong, and what to do about it."""


def say(step: str, text: str) -> None:
    """Print one line of progress."""
    print(f"[{step}] {text}", file=sys.stderr, flush=True)


def version_of(command: Sequence[str]) -> tuple[int, ...] | None:
    """Return the version numbers that a command prints, or None if it cannot be run."""
    try:
        # A pyenv or asdf shim answers at once; a minute is for a cold disk.
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    if done.returncode != 0 or not found:
        return None
    return tuple(int(part) for part in found.groups(default="0"))


def python_version(python: str) -> tuple[int, ...] | None:
    """Return the version of an interpreter, or None if it cannot be run."""
    return version_of([python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"])


def dotted(version: Sequence[int]) -> str:
    """Return (3, 11) as 3.11."""
    return ".".join(str(part) for part in version)


def find_python(asked: str) -> str:
    """Return the interpreter to build `.venv` with.

    Args:
        asked: The user's choice (`make PYTHON=...`), or the empty string.

    Raises:
        SetupError: No interpreter is new enough.
    """
    oldest, newest = dotted(OLDEST_PYTHON), dotted(NEWEST_PYTHON)
    if asked:
        version = python_version(asked)
        if version is None:
            raise SetupError(f"PYTHON={asked} cannot be run. Name a Python {oldest} or newer.")
        if version[:2] < OLDEST_PYTHON:
            raise SetupError(
                f"PYTHON={asked} is Python {dotted(version)}; driftgate needs {oldest} or newer."
            )
        path = shutil.which(asked)
        return asked if path is None else path
    seen = []
    minors = range(NEWEST_PYTHON[1], OLDEST_PYTHON[1] - 1, -1)
    for name in ["python3", *(f"python3.{minor}" for minor in minors)]:
        path = shutil.which(name)
        version = None if path is None else python_version(path)
        if path is None or version is None:
            continue
        if OLDEST_PYTHON <= version[:2] <= NEWEST_PYTHON:
            return path
        seen.append(f"{path} is {dotted(version)}")
    raise SetupError(
        f"driftgate needs Python {oldest} to {newest}, and there is none on the PATH "
        f"({'; '.join(seen) or 'no python3 at all'}). Install one, or name one that is elsewhere: "
        f"make setup PYTHON=/path/to/python{oldest}"
    )


def index_settings(pip_config: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Translate pip's settings of package indexes into uv's, which does not read pip's.

    So that a company's mirror that is set up for pip alone works here too. What is set for uv
    itself comes first.

    Args:
        pip_config: What `pip config list` prints, pip's environment variables included.
        environ: The environment variables that are set already.

    Returns:
        Environment variables to add.
    """
    settings: dict[str, str] = {}
    # pip's own order, the last one wins: global, the command's, the environment.
    for scope in ("global", "install", ":env:"):
        for line in pip_config.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(f"{scope}.") and value:
                settings[name[len(scope) + 1 :]] = ast.literal_eval(value)
    translation = (
        ("index-url", ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
        ("extra-index-url", ("UV_INDEX", "UV_EXTRA_INDEX_URL")),
        ("cert", ("SSL_CERT_FILE",)),
        ("trusted-host", ("UV_INSECURE_HOST",)),
        ("default-timeout", ("UV_HTTP_TIMEOUT",)),
        ("timeout", ("UV_HTTP_TIMEOUT",)),
    )
    return {
        theirs[0]: " ".join(settings[ours].split())
        for ours, theirs in translation
        if ours in settings and not any(name in environ for name in theirs)
    }


def environment(python: str) -> dict[str, str]:
    """Return the environment for pip and uv: the user's, less what would mislead them."""
    env = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    listed = subprocess.run(
        [python, "-m", "pip", "config", "list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        env.update(index_settings(listed.stdout, env))
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    env["PIP_NO_INPUT"] = "1"
    # The interpreter is the user's choice; another one is never fetched behind their back.
    env["UV_PYTHON_DOWNLOADS"] = "never"
    return env


def run(command: Sequence[str], env: Mapping[str, str], cure: str) -> None:
    """Run a command in the project's folder, its progress shown.

    On a terminal it draws its own bars. Elsewhere its lines are passed on, less uv's list of every
    single package.

    Raises:
        SetupError: The command failed; says the cure.
    """
    if sys.stderr.isatty():
        code = subprocess.run(
            command, cwd=str(ROOT), env=env, stdin=subprocess.DEVNULL, check=False
        ).returncode
    else:
        with subprocess.Popen(
            command,
            cwd=str(ROOT),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if not re.match(r" [+~-] ", line):
                    sys.stderr.write(line)
                    sys.stderr.flush()
        code = process.returncode
    if code != 0:
        raise SetupError(f"`{shlex.join(command)}` ended with exit code {code}. {cure}")


def locked_requirement(lock: str, name: str) -> str | None:
    """Return one package's part of the lock (name, version, hashes), or None if it has none."""
    found = re.search(rf"^{re.escape(name)}==.*(?:(?<=\\)\n.*)*$", lock, re.MULTILINE)
    return None if found is None else found.group()


def find_uv(python: str, env: Mapping[str, str], step: str) -> str:
    """Return the uv to install with, after installing it into `.tools` if there is none.

    Raises:
        SetupError: It could not be installed; says what is missing.
    """
    theirs = shutil.which("uv")
    if theirs is not None:
        version = version_of([theirs, "--version"])
        if version is not None and version >= OLDEST_UV:
            say(step, f"uv {dotted(version)}, yours: {theirs}")
            return theirs
    requirement = locked_requirement(LOCK.read_text("utf-8"), "uv") if LOCK.exists() else None
    wanted = "newest" if requirement is None else requirement.split()[0].partition("==")[2]
    own = TOOLS / "bin" / "uv"
    version = version_of([str(own), "--version"])
    if version is not None and wanted in ("newest", dotted(version)):
        say(step, f"uv {dotted(version)}, the project's own: .tools/bin/uv")
        return str(own)
    say(step, f"uv: installing {wanted} into .tools (a 20 MB download)")
    if subprocess.run([python, "-c", "import ensurepip, venv"], check=False).returncode != 0:
        raise SetupError(
            f"{python} cannot make virtual environments: its modules venv and ensurepip are "
            "missing. On Debian and Ubuntu: apt-get install python3-venv. Or install uv, or name "
            "another Python: make setup PYTHON=..."
        )
    run(
        [python, "-m", "venv", "--clear", str(TOOLS)],
        env,
        "Without it there is no place to install uv in.",
    )
    pip = [str(TOOLS / "bin" / "python"), "-m", "pip", "install"]
    cure = (
        "Is a package index in reach? pip's settings count (PIP_INDEX_URL, pip.conf). "
        "A uv of your own on the PATH is used as it is."
    )
    if requirement is None:
        run([*pip, "uv"], env, cure)
    else:
        pinned = TOOLS / "uv.lock.txt"
        pinned.write_text(requirement + "\n", "utf-8")
        run([*pip, "--require-hashes", "--requirement", str(pinned)], env, cure)
    return str(own)


def setup(asked: str) -> None:
    """Bring `.venv` to the state that the lock and pyproject.toml describe."""
    started_s = time.monotonic()
    python = find_python(asked)
    version = python_version(python) or ()
    say("1/4", f"Python {dotted(version)}: {python}")
    env = environment(python)
    uv = find_uv(python, env, "2/4")

    present = python_version(str(VENV_PYTHON))
    if present is None or present[:2] < OLDEST_PYTHON or (asked and present[:2] != version[:2]):
        run(
            [uv, "venv", "--quiet", "--clear", "--python", python, str(VENV)],
            env,
            "Can the project's folder be written?",
        )
    count = len(re.findall(r"^\S+==", LOCK.read_text("utf-8"), re.MULTILINE))
    say(
        "3/4",
        f"dependencies: the up to {count} packages of requirements.lock into .venv (6 GB on Linux, "
        "most of it torch's: minutes on a slow line, seconds from uv's cache)",
    )
    into = ["--python", str(VENV_PYTHON)]
    run(
        [uv, "pip", "sync", *into, "--require-hashes", "--build-constraints", LOCK.name, LOCK.name],
        env,
        "The lines above say why. Usual causes: no package index in reach (name yours in "
        "UV_DEFAULT_INDEX or PIP_INDEX_URL), less than 8 GB free on the disk, or no C compiler on "
        "a platform without wheels. Nothing is lost: run it again to go on.",
    )
    say("4/4", "driftgate itself, editable")
    editable = ["--no-deps", "--no-build-isolation", "--editable", "."]
    run([uv, "pip", "install", "--quiet", *into, *editable], env, "Is pyproject.toml in order?")
    STAMP.write_text(f"{dotted(version)}\n", "utf-8")
    say("done", f"set up in {time.monotonic() - started_s:.0f} s")


def lock(asked: str, extra: Sequence[str]) -> None:
    """Resolve pyproject.toml into requirements.lock, with hashes and without any index.

    Args:
        asked: The user's interpreter, or the empty string.
        extra: Further options of `uv pip compile`, such as `--upgrade`.
    """
    python = find_python(asked)
    env = environment(python)
    # A folder of local wheels must not decide what everybody else installs.
    env.pop("UV_FIND_LINKS", None)
    uv = find_uv(python, env, "1/2")
    say("2/2", "resolving pyproject.toml into requirements.lock")
    options = [
        "--universal",
        "--python-version",
        dotted(OLDEST_PYTHON),
        # One version for every Python and platform: what was tested is what all get.
        "--fork-strategy",
        "fewest",
        "--generate-hashes",
        "--no-emit-index-url",
        "--all-extras",
        "--custom-compile-command",
        "make lock",
        "--quiet",
    ]
    files = ["pyproject.toml", "--output-file", LOCK.name]
    run(
        [uv, "pip", "compile", *options, *extra, *files],
        env,
        "Do the ranges in pyproject.toml contradict each other?",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="install.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("action", choices=["setup", "lock", "uv"])
    parser.add_argument("--python", default="", help="the interpreter to use")
    known, extra = parser.parse_known_args(arguments)
    try:
        if known.action == "lock":
            lock(known.python, extra)
        elif extra:
            parser.error(f"unknown: {' '.join(extra)}")
        elif known.action == "uv":
            python = find_python(known.python)
            print(find_uv(python, environment(python), "1/1"))
        else:
            setup(known.python)
    except SetupError as error:
        print(f"setup failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
