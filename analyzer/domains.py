"""What semantic scores are measured against: the domains' prototypes and the contrasts.

Five domains are built in; a configuration adds more, or replaces one by naming it again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from analyzer.errors import AnalyzerError

__all__ = ["BUILT_IN", "Contrast", "DomainsError", "Reference", "load_domains", "normalise_name"]

BUILT_IN = Path(__file__).with_name("domains.yaml")

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]
Sentence = Annotated[str, Meta(min_length=2, max_length=2_000)]
Sentences = Annotated[list[Sentence], Meta(min_length=3, max_length=500)]
"""Three at least: a prompt is measured against the three that are nearest to it."""


class DomainsError(AnalyzerError):
    """A domains file that cannot be used; the message names file, key and reason."""


class Contrast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same requests with a quality and without it, pair by pair."""

    high: Sentences
    low: Sentences


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    domains: Annotated[dict[Name, Sentences], Meta(min_length=1)]
    contrasts: dict[str, Contrast] = {}


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that has to be embedded once."""

    domains: dict[str, list[str]]
    """Prototype sentences by domain."""
    contrasts: dict[str, Contrast]
    """By score: clarity, specificity, actionability and density."""


def load_domains(extra: Path | None = None) -> Reference:
    """The built-in domains, with those of a file.

    Args:
        extra: a YAML file ``domains: {name: [sentence, ...]}`` with three or more sentences a
            domain; names are lower case, joined by hyphens.

    Raises:
        DomainsError: a file that cannot be read or understood.
    """
    built_in = _read(BUILT_IN)
    domains = dict(built_in.domains)
    if extra is not None:
        domains |= _read(extra).domains
    return Reference(domains=domains, contrasts=built_in.contrasts)


def normalise_name(name: str) -> str:
    """A producer's spelling of a domain as ours.

    >>> normalise_name(" Web_Development ")
    'web-development'
    """
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


def _read(path: Path) -> _File:
    try:
        found = msgspec.yaml.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise DomainsError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except msgspec.MsgspecError as error:
        raise DomainsError(f"{path}: {error}") from error
    for name, contrast in found.contrasts.items():
        if len(contrast.high) != len(contrast.low):
            raise DomainsError(
                f"{path}: contrasts.{name} has {len(contrast.high)} high and {len(contrast.low)} "
                "low sentences; they are pairs"
            )
    return found
