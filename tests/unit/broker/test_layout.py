from __future__ import annotations

import base64
from pathlib import Path

import pytest

from driftgate.broker.errors import BrokerStartError
from driftgate.broker.layout import new_cluster_id, prepare_layout, read_cluster_id
from driftgate.broker.settings import COMMON, embedded_properties, render_properties


def test_given_folder_is_made_and_keeps_its_log(tmp_path: Path) -> None:
    """A folder of the user's holds everything, and nothing of it is temporary."""
    layout = prepare_layout(tmp_path / "a" / "b")
    assert layout.folder.is_dir()
    assert layout.log.parent == layout.folder
    layout.remove(keep_log=False)
    assert layout.folder.is_dir()


def test_folder_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    """A file in the way, or a comma that Kafka would split at."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerStartError, match="cannot be made"):
        prepare_layout(tmp_path / "file")
    with pytest.raises(BrokerStartError, match="comma"):
        prepare_layout(tmp_path / "a,b")


def test_cluster_ids_are_uuids_in_kafkas_form() -> None:
    """22 characters that a command line cannot take for an option."""
    for _ in range(200):
        text = new_cluster_id()
        assert len(base64.urlsafe_b64decode(text + "==")) == 16
        assert not text.startswith("-")


def test_formatted_folder_names_its_cluster(tmp_path: Path) -> None:
    """A restart keeps the cluster and its topics."""
    (tmp_path / "meta.properties").write_text("#\nnode.id=1\ncluster.id=abc\nversion=1\n")
    assert read_cluster_id(tmp_path) == "abc"


def test_folder_whose_format_was_cut_short_is_emptied(tmp_path: Path) -> None:
    """What a kill in the middle of a format leaves would make the next format fail."""
    assert read_cluster_id(tmp_path / "none") is None
    data = tmp_path / "kafka"
    (data / "__cluster_metadata-0").mkdir(parents=True)
    (data / "bootstrap.checkpoint").write_bytes(b"x")
    assert read_cluster_id(data) is None
    assert not data.exists()


def test_folder_with_other_files_is_never_emptied(tmp_path: Path) -> None:
    """Topics without meta.properties are the user's to rescue."""
    (tmp_path / "topic-0").mkdir()
    with pytest.raises(BrokerStartError, match=r"no meta\.properties"):
        read_cluster_id(tmp_path)
    assert (tmp_path / "topic-0").is_dir()


def test_meta_properties_without_a_cluster_is_an_error(tmp_path: Path) -> None:
    """A damaged file is named."""
    (tmp_path / "meta.properties").write_text("node.id=1\n")
    with pytest.raises(BrokerStartError, match=r"names no cluster\.id"):
        read_cluster_id(tmp_path)


def test_embedded_broker_listens_on_the_loopback_only() -> None:
    """Neither clients nor the controller are reachable from elsewhere."""
    properties = embedded_properties(9092, 9093, Path("/d"))
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert properties["advertised.listeners"] == properties["listeners"]


def test_one_node_never_asks_for_a_second_replica() -> None:
    """Every replication factor and minimum of in-sync replicas is one."""
    asked = {k: v for k, v in COMMON.items() if "replication.factor" in k or k.endswith(".isr")}
    assert len(asked) == 6
    assert set(asked.values()) == {"1"}


def test_properties_are_written_as_java_reads_them() -> None:
    """Backslashes are doubled; what is not ASCII becomes escapes, in UTF-16."""
    text = render_properties({"log.dirs": "/a\\b/ü/😀"})
    assert text == "log.dirs=/a\\\\b/\\u00fc/\\ud83d\\ude00\n"
