"""Where an embedded broker keeps its files, and whether its data folder is formatted."""

from __future__ import annotations

import base64
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from driftgate.broker.errors import BrokerStartError

__all__ = ["Layout", "new_cluster_id", "prepare_layout", "read_cluster_id"]

# What Kafka's `format` writes before meta.properties, which it writes last.
_HALF_FORMATTED = {"bootstrap.checkpoint", "__cluster_metadata-0"}


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one broker.

    Attributes:
        folder: holds all but, for a temporary broker, the log.
        temporary: whether all of it is removed at the end.
        log: all that Java says.
    """

    folder: Path
    temporary: bool
    log: Path

    @property
    def data(self) -> Path:
        """Kafka's own data."""
        return self.folder / "kafka"

    @property
    def properties(self) -> Path:
        """The broker's settings."""
        return self.folder / "server.properties"

    @property
    def lock(self) -> Path:
        """Held while a broker runs on the folder."""
        return self.folder / "broker.lock"

    def read_owner(self) -> int | None:
        """The process that started the broker of the folder last; None when unknown."""
        try:
            return int(self.lock.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def remove(self, *, keep_log: bool) -> None:
        """Removes what a temporary broker has left; else does nothing."""
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
            if not keep_log:
                self.log.unlink(missing_ok=True)


def prepare_layout(data_dir: Path | None) -> Layout:
    """Makes the folder of a broker: the given one, or a temporary one.

    Raises:
        BrokerStartError: the folder cannot be made or used.
    """
    try:
        if data_dir is None:
            # The log beside the folder, so that it can outlive the folder after a failure.
            folder = Path(tempfile.mkdtemp(prefix="driftgate-broker-"))
            return Layout(folder=folder, temporary=True, log=folder.with_name(f"{folder.name}.log"))
        folder = data_dir.absolute()
        if "," in str(folder):
            raise BrokerStartError(f"{folder}: Kafka cannot keep data in a path with a comma")
        folder.mkdir(parents=True, exist_ok=True)
        return Layout(folder=folder, temporary=False, log=folder / "broker.log")
    except OSError as error:
        raise BrokerStartError(
            f"the broker's data folder cannot be made ({error}); name one that can be written to"
        ) from error


def new_cluster_id() -> str:
    """A random id in Kafka's form: a UUID in URL-safe base 64 that does not start with a dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text


def read_cluster_id(data: Path) -> str | None:
    """The cluster id of a formatted data folder; None when it has to be formatted.

    A folder whose formatting was cut short is emptied, so that it can be formatted.

    Raises:
        BrokerStartError: the folder holds something that is no whole Kafka data folder.
    """
    meta = data / "meta.properties"
    try:
        text = meta.read_text(encoding="utf-8")
    except FileNotFoundError:
        present = {path.name for path in data.iterdir()} if data.is_dir() else set()
        if not present <= _HALF_FORMATTED:
            raise BrokerStartError(
                f"{data} holds files but no meta.properties, so Kafka cannot use it; move the "
                "folder away or name another one"
            ) from None
        shutil.rmtree(data, ignore_errors=True)
        return None
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "cluster.id":
            return value.strip()
    raise BrokerStartError(f"{meta} names no cluster.id; move the folder away or name another one")
