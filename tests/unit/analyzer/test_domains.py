"""Domains: five built in, more by a file, and a file that is wrong is refused with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.domains import DomainsError, load_domains, normalise_name

FIVE = ["web-development", "machine-learning", "data-analysis", "backend", "general"]


def test_five_domains_and_four_contrasts_are_built_in() -> None:
    """With sentences that are all different."""
    found = load_domains()
    assert list(found.domains) == FIVE
    assert set(found.contrasts) == {"clarity", "specificity", "actionability", "density"}
    sentences = [sentence for each in found.domains.values() for sentence in each]
    assert len(sentences) == len(set(sentences)) >= 5 * 15


def test_a_file_adds_and_replaces_domains(tmp_path: Path) -> None:
    """The others stay."""
    path = tmp_path / "domains.yaml"
    path.write_text(
        "domains:\n"
        "  travel: [Book a flight., Find a hotel., Plan a trip.]\n"
        "  general: [Say hello., Say yes., Say goodbye.]\n"
    )
    found = load_domains(path)
    assert list(found.domains) == [*FIVE, "travel"]
    assert found.domains["general"] == ["Say hello.", "Say yes.", "Say goodbye."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("domains: {travel: [one sentence]}", r"length >= 3.*\$\.domains"),
        ("domains: {'Has Blanks': [aa, bb, cc]}", "matching regex"),
        ("domain: {}", r"unknown field `domain`"),
        ("domains: {}", "length >= 1"),
        ("{", "domains.yaml"),
        (
            "{domains: {a: &s [b1, c1, d1]}, contrasts: {x: {high: [b1, c1, d1, e1], low: *s}}}",
            "contrasts.x has 4 high and 3 low",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    """File, key and reason are in the message."""
    path = tmp_path / "domains.yaml"
    path.write_text(text)
    with pytest.raises(DomainsError, match=message) as caught:
        load_domains(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(DomainsError, match="cannot be read"):
        load_domains(tmp_path / "none.yaml")


def test_names_are_found_however_they_are_spelled() -> None:
    """Blanks, underscores and capitals do not matter."""
    assert {
        normalise_name(name) for name in ("Data Analysis", "data_analysis ", "DATA-ANALYSIS")
    } == {"data-analysis"}
