"""The existing analysis: a prompt's quality by rules alone, without a model.

Five scores in [0, 1], each a weighted sum of features that are counted in the text, and their
weighted mean. The weights are in the tables below, so that a score can be explained by hand. The
rules know English words; other languages are judged by what all share (length, lines, numbers,
code, punctuation), which is one of the things that the semantic half makes up for.

Costs about 20 us for a sentence and is linear in the length.
"""

from __future__ import annotations

import re
from math import exp

import msgspec

from schemas.prompts import RuleScores

__all__ = ["WEIGHTS", "Facts", "facts", "rule_scores"]

WEIGHTS: dict[str, float] = {
    "structure": 0.20,
    "clarity": 0.20,
    "specificity": 0.25,
    "actionability": 0.20,
    "completeness": 0.15,
}
"""Share of each score in ``overall``."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_SENTENCE_END = re.compile(r"[.!?。！？؟।]+(?=\s|$)|[。！？]|\n\s*\n")
_LIST_ITEM = re.compile(r"^[ \t]{0,8}(?:[-*•]|\d{1,3}[.)]) ", re.MULTILINE)
_NUMBER = re.compile(r"\d+")
_QUOTED = re.compile(r"[\"“”«»`]")
_CODE = re.compile(r"```|\w\(|[a-z]_[a-z]|[a-z][A-Z]|[{}<>=;]|/\w|\w\.\w")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-zA-Z]+")

_VERBS = frozenset(
    "add analyse analyze answer arrange ask brainstorm build calculate change check choose "
    "classify clean code combine compare complete compose compute configure convert correct "
    "count create debug define delete deploy describe design detect determine develop diagnose "
    "discuss draft draw edit estimate evaluate explain extract fetch fill filter find fix "
    "format generate give group help identify implement improve install list make measure merge "
    "migrate name optimise optimize organise organize outline parse plan plot predict prepare "
    "produce propose prove provide rank read recommend refactor remove rename replace reply "
    "resolve return review rewrite run schedule select send set show simplify solve sort split "
    "state structure suggest summarise summarize sync tell test train transform translate turn "
    "update use validate verify visualise visualize write".split()
)
_QUESTIONS = frozenset("how what when where which who whom whose why".split())
_ASKING = frozenset("am are can could do does i is like need please should want will would".split())
_VAGUE = frozenset(
    "anything basically better bit etc everything good kinda maybe nice probably several some "
    "somehow something something's sort stuff thing things various whatever".split()
)
_CONSTRAINTS = frozenset(
    "above after at avoid before below between by dont each every exactly except following from "
    "in include including least less limit maximum minimum more most must never no not on only "
    "per should than under until using via when where with within without".split()
)
_REASONS = frozenset(
    "although as because but for given goal if instead purpose reason since so than that "
    "therefore to when which while who whose".split()
)
_FORMATS = frozenset(
    "bullet bullets code column columns command csv diagram email essay example examples "
    "function haiku html json letter line lines list markdown outline paragraph paragraphs poem "
    "points query recipe report rows script sentence sentences sql steps story summary table "
    "template title tweet words xml yaml".split()
)
_REFERENCES = frozenset("he it she that them these they this those".split())


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted in a text."""

    words: int
    distinct_words: int
    sentences: int
    list_items: int
    lines: int
    numbers: int
    quoted: int
    code: int
    names: int
    long_words: int
    vague: int
    constraints: int
    reasons: int
    formats: int
    verbs: int
    starts_with_verb: bool
    asks: bool
    starts_with_reference: bool
    ends: bool
    capital: bool
    shouts: bool


def facts(text: str) -> Facts:
    """Count what the scores are made of."""
    found = _WORD.findall(text)
    lower = [word.lower() for word in found]
    stripped = text.strip()
    first = lower[0] if lower else ""
    lead = first if first != "please" or len(lower) < 2 else lower[1]
    return Facts(
        words=len(lower),
        distinct_words=len(set(lower)),
        sentences=max(len(_SENTENCE_END.findall(text)), 1),
        list_items=len(_LIST_ITEM.findall(text)),
        lines=1 + text.count("\n"),
        numbers=len(_NUMBER.findall(text)),
        quoted=len(_QUOTED.findall(text)),
        code=len(_CODE.findall(text)),
        names=len(_NAME.findall(text)),
        long_words=sum(len(word) >= 8 for word in lower),
        vague=_count(_VAGUE, lower),
        constraints=_count(_CONSTRAINTS, lower),
        reasons=_count(_REASONS, lower),
        formats=_count(_FORMATS, lower),
        verbs=_count(_VERBS, lower),
        starts_with_verb=lead in _VERBS,
        asks="?" in text or "？" in text or first in _QUESTIONS or first in _ASKING,
        starts_with_reference=first in _REFERENCES,
        ends=stripped.endswith((".", "?", "!", ":", "。", "？", "！", "؟", "।", "```", ";", "}")),
        capital=bool(stripped) and not stripped[0].islower(),
        shouts=len(stripped) > 12 and stripped.isupper(),
    )


def _count(words: frozenset[str], found: list[str]) -> int:
    return sum(map(words.__contains__, found))


def rule_scores(text: str) -> RuleScores:
    """The rules' scores of a prompt, each in [0, 1]; the same text always has the same scores.

    - structure: begins like a sentence, ends like one, sentences of a readable length, lines or
      lists where it is long.
    - clarity: few vague words, no reference to something unsaid, sentences that can be followed, no
      shouting, words enough to be understood.
    - specificity: numbers, names, quotations, code, constraints, technical words.
    - actionability: says what to do (a verb of request, best as the first word) or asks, and names
      the form of the answer.
    - completeness: long enough, with reasons or conditions, constraints, and a form of the answer.
    """
    f = facts(text)
    words = f.words or 1
    mean_sentence = words / f.sentences
    readable = 1.0 if 4 <= mean_sentence <= 28 else 0.5 if mean_sentence < 45 else 0.1
    laid_out = 1.0 if words < 40 or f.list_items or f.lines > 2 else 0.4
    structure = 0.25 * f.capital + 0.25 * f.ends + 0.3 * readable + 0.2 * laid_out

    plain = 1.0 - min(4.0 * f.vague / words, 1.0)
    clarity = (
        0.35 * plain
        + 0.15 * (not f.starts_with_reference)
        + 0.20 * readable
        + 0.10 * (not f.shouts)
        + 0.20 * _saturate(words, 15)
    )

    marks = f.numbers + f.quoted + f.names + 0.5 * f.code
    specificity = (
        0.40 * _saturate(marks, 4)
        + 0.25 * _saturate(f.constraints, 4)
        + 0.20 * min(3.0 * f.long_words / words, 1.0)
        + 0.15 * _saturate(f.distinct_words, 40)
    )

    request = 0.9 if f.starts_with_verb else 0.6 if f.verbs else 0.5 if f.asks else 0.0
    actionability = 0.70 * request + 0.15 * _saturate(f.formats, 2) + 0.15 * _saturate(words, 15)

    completeness = (
        0.45 * _saturate(words, 40)
        + 0.20 * _saturate(f.reasons, 3)
        + 0.20 * _saturate(f.constraints, 4)
        + 0.15 * _saturate(f.formats, 2)
    )
    scores = {
        "structure": structure,
        "clarity": clarity,
        "specificity": specificity,
        "actionability": actionability,
        "completeness": completeness,
    }
    if not f.words:
        scores = dict.fromkeys(scores, 0.0)
    unit = {name: min(max(score, 0.0), 1.0) for name, score in scores.items()}
    overall = sum(weight * unit[name] for name, weight in WEIGHTS.items())
    return RuleScores(**unit, overall=min(overall, 1.0))


def _saturate(count: float, half: float) -> float:
    """0 for nothing, 0.63 at ``half``, towards 1 for ever more."""
    return 1.0 - exp(-count / half)
