"""The project's own rules: what the lock holds, what a module exports and what it may import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("analyzer", "driftgate", "schemas", "streams")
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

# The modules of `schemas`, `analyzer` and `streams` that may touch the outside world, each with its
# reason; a name that ends in `*` stands for all that begin with it. All others are core: the same
# input gives the same output, so that a decision can be recomputed from the log. Keep it short.
SHELLS = {
    "analyzer/analysis.py": "times a poll's way through the analysis",
    "analyzer/cache_redis*": "asks a Redis, in a thread, with time-outs",
    "analyzer/curator.py": "sessions with Kafka, pauses between them, and the end",
    "analyzer/curator_session.py": "the loop that ties feedback and curation to Kafka",
    "analyzer/encoder*": "runs the model in a thread, with a time-out",
    "analyzer/faults.py": "rehearses failures: takes time, and fails at random",
    "analyzer/follower.py": "follows the topic of the rollout's state",
    "analyzer/kafka_*": "consumes and produces",
    "analyzer/model.py": "finds the model's files: settings, packages, hub",
    "analyzer/publish.py": "writes results, in transactions",
    "analyzer/semantic.py": "runs the model beside the loop: a thread and time-outs",
    "analyzer/worker.py": "the loop that ties the core to Kafka and the clock",
    "schemas/generate.py": "writes the generated files, run by hand",
    "streams/app.py": "the Faust app, and the timer that writes the clock into the log",
    "streams/console/gatekeeper.py": "lets people in: the clock, chance, the database",
    "streams/console/hub.py": "pushes to pages, as they are ready",
    "streams/console/kafka_*": "follows the topics",
    "streams/console/process.py": "the console's tasks, its port, its end",
    "streams/console/store.py": "the console's database",
    "streams/console/token_file.py": "reads and writes the file of tokens",
    "streams/console/web*": "answers HTTP",
    "streams/notify/channels.py": "speaks to mail servers, chats and Alertmanager",
    "streams/notify/notifier.py": "consumes alerts, and waits between attempts",
    "streams/tracking/kafka_*": "consumes, and commits what MLflow has",
    "streams/tracking/mlflow_*": "writes to MLflow, in a thread, and waits for it",
    "streams/tracking/tracker.py": "the process that ties Kafka to MLflow",
    "streams/kafka_*": "reads ranges of the log back, and writes what the fold says",
}

# What only a shell may import. Relative to a decision, each of these is an input that the log does
# not hold: another process, the time, chance, the machine.
OUTSIDE = {
    "aiohttp",
    "aiokafka",
    "apprise",
    "asyncio",
    "faust",
    "http",
    "httpx",
    "huggingface_hub",
    "kafka",
    "mlflow",
    "mode",
    "multiprocessing",
    "os",
    "psutil",
    "redis",
    "requests",
    "secrets",
    "sentence_transformers",
    "signal",
    "socket",
    "sqlite3",
    "starlette",
    "subprocess",
    "tempfile",
    "threading.Thread",
    "threading.Timer",
    "time",
    "torch",
    "typer",
    "urllib.request",
    "uvicorn",
}

# The same in the form of calls on modules that the core may import.
OUTSIDE_CALLS = {
    "date.today",
    "datetime.now",
    "datetime.today",
    "datetime.utcnow",
    "np.random.rand",
    "np.random.randint",
    "np.random.randn",
    "np.random.random",
    "np.random.seed",
    "np.random.shuffle",
    "threading.Thread",
    "threading.Timer",
    "uuid.uuid1",
    "uuid.uuid4",
    "uuid1",
    "uuid4",
}

MAY_IMPORT = {
    "schemas": {"schemas"},
    "analyzer": {"analyzer", "schemas"},
    "streams": {"streams", "schemas"},
    "driftgate": {"analyzer", "driftgate", "schemas", "streams"},
}


def modules() -> list[str]:
    """Every module of the four packages, as a path from the project's root."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    )


def is_shell(module: str) -> bool:
    """Whether a module stands in the list above."""
    return any(
        module.startswith(shell[:-1]) if shell.endswith("*") else module == shell
        for shell in SHELLS
    )


def parse(module: str) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse((ROOT / module).read_text("utf-8"), module)


def imports(tree: ast.AST) -> Iterator[str]:
    """The full names that are imported anywhere in a tree, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            assert node.module is not None
            yield node.module
            # `from urllib import request` names a module too.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def outside_uses(tree: ast.AST) -> set[str]:
    """What of the outside world a tree uses."""
    found = set()
    for name in imports(tree):
        if name.startswith("random.") and name != "random.Random":
            found.add("random")
        parts = name.split(".")
        prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
        found |= prefixes & OUTSIDE
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            # A generator with a seed gives the same numbers every time.
            chance = re.fullmatch(r"random\.\w+|Random", called) is not None
            if chance and not (called.endswith("Random") and node.args):
                found.add("random")
            found |= {name for name in OUTSIDE_CALLS if f".{called}".endswith(f".{name}")}
        elif isinstance(node, ast.Name) and node.id in {"open", "input", "print"}:
            found.add(node.id)
    return found


def public_names(tree: ast.Module) -> set[str]:
    """The public functions, classes and constants that a module defines itself."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            bound = (name for target in node.targets for name in ast.walk(target))
            names.update(name.id for name in bound if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def exported(tree: ast.Module) -> list[str] | None:
    """A module's `__all__`, or None if it has none that can be read without running it."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            value: list[str] = ast.literal_eval(node.value)
            return value
    return None


def sorting_key(name: str) -> tuple[int, str]:
    """The order that ruff's RUF022 keeps too: constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def installer() -> ModuleType:
    """The set-up script, which is in no package."""
    spec = spec_from_file_location("driftgate_install", ROOT / ".ci/install.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def canonical(name: str) -> str:
    """A distribution's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_names_no_index() -> None:
    """The lock has names, versions and hashes: where they come from is the user's choice."""
    assert "://" not in LOCK
    options = {line.split()[0] for line in LOCK.splitlines() if line.startswith("-")}
    assert not options


def test_lock_has_a_hash_for_every_package() -> None:
    """Each entry is pinned to one version and carries at least one sha256."""
    entries = re.findall(
        r"^\S.*?(?=^\S|\Z)", re.sub(r"(?m)^#.*\n", "", LOCK), re.DOTALL | re.MULTILINE
    )
    assert len(entries) > 100
    bad = [
        entry.splitlines()[0]
        for entry in entries
        if not re.match(r"[a-z0-9-]+==\S+", entry) or "--hash=sha256:" not in entry
    ]
    assert not bad


def test_lock_names_no_folder_of_a_machine() -> None:
    """What made the lock is named by its command, without a path."""
    assert LOCK.splitlines()[1].strip() == "#    make lock"
    assert not re.findall(r"(?:^|\s)/\w+|file:", LOCK)


def test_every_dependency_is_locked() -> None:
    """Each dependency of pyproject.toml, extras and the build system included, is in the lock."""
    project = PYPROJECT["project"]
    groups = [project["dependencies"], PYPROJECT["build-system"]["requires"]]
    groups += project["optional-dependencies"].values()
    wanted = set()
    for requirement in (requirement for group in groups for requirement in group):
        found = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert found is not None
        wanted.add(canonical(found.group()))
    locked = set(re.findall(r"^([a-z0-9-]+)==", LOCK, re.MULTILINE))
    assert wanted - locked == {"driftgate"}, "run `make lock`"


def test_locked_requirement_is_cut_out_whole() -> None:
    """The installer's part of the lock is its own lines, hashes included, and nobody else's."""
    lock = (
        "aa==1 \\\n    --hash=sha256:11\nuv==0.9.1 ; os_name == 'posix' \\\n"
        "    --hash=sha256:22 \\\n    --hash=sha256:33\n    # via x\nuvicorn==2 \\\n"
        "    --hash=sha256:44\n"
    )
    cut = installer().locked_requirement
    assert cut(lock, "uv") == (
        "uv==0.9.1 ; os_name == 'posix' \\\n    --hash=sha256:22 \\\n    --hash=sha256:33"
    )
    assert cut(lock, "missing") is None
    assert cut(LOCK, "uv").count("--hash=sha256:") > 5


def test_pip_mirror_is_passed_on_to_uv() -> None:
    """A mirror that is set up for pip alone counts; the environment comes before the files."""
    config = (
        "global.index-url='https://global.example/simple'\n"
        "global.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'\n"
        "global.cert='/etc/ssl/company.pem'\n"
        ":env:.index-url='https://env.example/simple'\n"
        ":env:.no-input='1'\n"
    )
    settings = installer().index_settings
    assert settings(config, {}) == {
        "UV_DEFAULT_INDEX": "https://env.example/simple",
        "UV_INDEX": "https://a.example/simple https://b.example/simple",
        "SSL_CERT_FILE": "/etc/ssl/company.pem",
    }


def test_uv_settings_come_before_those_of_pip() -> None:
    """What is set for uv itself is not overruled by pip's settings."""
    config = "global.index-url='https://global.example/simple'\nglobal.cert='/a.pem'\n"
    environ = {"UV_INDEX_URL": "https://uv.example/simple", "SSL_CERT_FILE": "/b.pem"}
    assert installer().index_settings(config, environ) == {}


@pytest.mark.parametrize("module", modules())
def test_module_exports_are_explicit_and_sorted(module: str) -> None:
    """A module that has public names lists them, sorted, and lists nothing that is not there."""
    tree = parse(module)
    names = exported(tree)
    if names is None:
        assert not public_names(tree), "add __all__"
        return
    assert names == sorted(names, key=sorting_key)
    assert len(names) == len(set(names))
    bound = {alias.asname or alias.name for node in tree.body for alias in imported_names(node)}
    assert set(names) <= public_names(tree) | bound | {"__version__"}


def imported_names(node: ast.stmt) -> list[ast.alias]:
    """The names that an import statement binds."""
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) else []


def test_imported_libraries_are_declared() -> None:
    """Each library that is imported is in pyproject.toml, not only in what another one needs."""
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {
        canonical(re.split(r"[^A-Za-z0-9._-]", requirement)[0])
        for group in groups
        for requirement in group
    }
    distributions = packages_distributions()
    undeclared = {
        (top, module)
        for module in modules()
        for top in {name.partition(".")[0] for name in imports(parse(module))}
        if top not in sys.stdlib_module_names
        and top not in PACKAGES
        and not {canonical(name) for name in distributions.get(top, [])} & declared
    }
    assert not undeclared


@pytest.mark.parametrize("module", modules())
def test_layers_are_kept(module: str) -> None:
    """`schemas` imports no other package; `analyzer` and `streams` only `schemas`."""
    package = module.partition("/")[0]
    ours = {name.partition(".")[0] for name in imports(parse(module))} & set(PACKAGES)
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize(
    "module",
    [name for name in modules() if not name.startswith("driftgate/") and not is_shell(name)],
)
def test_core_is_pure(module: str) -> None:
    """The contract and the core use no broker, network, environment, clock or chance."""
    assert outside_uses(parse(module)) == set()


def test_every_shell_exists() -> None:
    """The list of shells names no module that is gone."""
    gone = [
        shell
        for shell in SHELLS
        if not any(
            module.startswith(shell[:-1]) if shell.endswith("*") else module == shell
            for module in modules()
        )
    ]
    assert not gone


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", "time"),
        ("import os.path", "os"),
        ("from os import environ", "os"),
        ("from urllib import request", "urllib.request"),
        ("import aiokafka.errors as errors", "aiokafka"),
        ("def f():\n    from random import random", "random"),
        ("import random\nx = random.choice([1, 2])", "random"),
        ("import random\nx = random.Random()", "random"),
        ("import datetime\nx = datetime.datetime.now(datetime.UTC)", "datetime.now"),
        ("from uuid import uuid4\nx = uuid4()", "uuid4"),
        ("import numpy as np\nx = np.random.rand(3)", "np.random.rand"),
        ("x = open('state')", "open"),
    ],
)
def test_outside_uses_are_found(source: str, found: str) -> None:
    """The rule for the core sees each way to reach outside."""
    assert found in outside_uses(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "from collections.abc import Mapping",
        "import urllib.parse",
        "import datetime\nx = datetime.datetime.fromtimestamp(0, datetime.UTC)",
        "import numpy as np\nx = np.random.default_rng(7)",
        "import random\nx = random.Random(7).choice([1, 2])",
        "from uuid import UUID, uuid5",
    ],
)
def test_pure_code_is_left_alone(source: str) -> None:
    """The rule for the core does not mind what gives the same result every time."""
    assert outside_uses(ast.parse(source)) == set()


def test_every_test_has_a_sentence() -> None:
    """Each test function says in its docstring what holds."""
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            sentence = (ast.get_docstring(node) or "").split("\n\n")[0]
            if node.name.startswith("test_") and not re.search(r"[.!?]$", sentence):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not silent


def test_typed_marker_is_in_every_package() -> None:
    """Type checkers of those who import us see our types."""
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


def test_ci_script_is_valid_bash() -> None:
    """The CI script parses."""
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True, timeout=30)


def test_contributing_stays_short() -> None:
    """The guide for contributors fits on two pages."""
    words = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split()
    assert len(words) < 1000
