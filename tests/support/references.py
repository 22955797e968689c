"""Prompts that are all different, and a drift reference of them that needs no model."""

from __future__ import annotations

import functools
import itertools

from analyzer.encoder import HashingEncoder
from analyzer.features import SemanticFeatures
from driftgate.drifting import make_reference, measure
from schemas.drift_reference import ReferenceFile
from schemas.prompts import PromptSubmitted

__all__ = ["TEXTS", "reference_file"]

_ASKED = (
    "Explain {} to a new colleague in two short paragraphs.",
    "Which mistakes do people make with {}?",
    "Write a short example of {} in Python, with a comment on each step.",
    "How would you test {}?",
    "Compare {} with what was usual ten years ago.",
)
_OF = ("in a web shop", "on a small server", "for a bank", "in a game", "at school", "at night")
_SUBJECTS = (
    "a hash table",
    "binary search",
    "a database index",
    "password storage",
    "a message queue",
    "image compression",
    "a regular expression",
    "linear regression",
    "a load balancer",
    "version control",
)
TEXTS = [
    asked.format(f"{subject} {of}")
    for asked, subject, of in itertools.product(_ASKED, _SUBJECTS, _OF)
]
"""300 of them."""


@functools.cache
def reference_file() -> ReferenceFile:
    """A reference of :data:`TEXTS`, by the hashing encoder."""
    encoder = HashingEncoder()
    prompts = [PromptSubmitted(prompt=text) for text in TEXTS]
    measured = measure(prompts, encoder, SemanticFeatures(encoder), 0.3, progress=False)
    return make_reference(measured, encoder, source="texts", seed=1)
