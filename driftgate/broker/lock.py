"""Makes the lock list of the broker's jars anew: `python -m driftgate.broker.lock`.

For maintainers, after KAFKA_VERSION has changed. It resolves Kafka alone, then adds the logging
binding at the version of Kafka's own slf4j-api: resolved together, jgo picks wrong versions.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from jgo.maven import MavenContext

from driftgate.broker.artefacts import KAFKA_VERSION, LOCK_PATH, Artefact

__all__ = ["main", "resolve_lock"]


def resolve_lock(kafka_version: str, folder: Path) -> list[Artefact]:
    """Resolves and fetches every jar that a broker of a version needs.

    Args:
        kafka_version: an exact version of Apache Kafka, >= 4.
        folder: where the jars may be put.

    Returns:
        The artefacts, sorted by group and name.
    """
    context = MavenContext(repo_cache=folder)
    kafka = context.create_dependency(f"org.apache.kafka:kafka_2.13:{kafka_version}")
    inputs, transitive = context.resolver.resolve([kafka])
    found = [
        (d.groupId, d.artifactId, d.version, d.classifier, d.artifact.resolve())
        for d in (*inputs, *transitive)
    ]
    slf4j = next(version for _, name, version, _, _ in found if name == "slf4j-api")
    simple = context.project("org.slf4j", "slf4j-simple").at_version(slf4j).artifact()
    found.append(("org.slf4j", "slf4j-simple", slf4j, "", simple.resolve()))
    return sorted(
        (
            Artefact(
                group=group,
                artifact=name,
                version=version,
                classifier=classifier,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                size=path.stat().st_size,
            )
            for group, name, version, classifier, path in found
        ),
        key=lambda item: (item.group, item.artifact, item.classifier),
    )


def main() -> int:
    """Writes the lock list of KAFKA_VERSION beside this file."""
    print(f"resolving Apache Kafka {KAFKA_VERSION} (about 20 s)", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        items = resolve_lock(KAFKA_VERSION, Path(folder))
    entries = [{k: v for k, v in asdict(item).items() if v != ""} for item in items]
    LOCK_PATH.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    total = sum(item.size for item in items)
    print(f"{LOCK_PATH}: {len(items)} jars, {total / 1e6:.1f} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
