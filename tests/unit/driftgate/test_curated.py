"""What somebody asks for of the cases, and what MLflow is given of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from driftgate.curated import CaseFilter, moment
from driftgate.mlflow_dataset import dataset_record
from schemas.feedback import CaseFeedback, CaseReason, CuratedCase, FeedbackKind
from tests.support.samples import sample

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def case(**changes: Any) -> CuratedCase:
    values = {"service": "shop", "reasons": [CaseReason.FALLBACK], "feedback": None}
    return msgspec.structs.replace(sample(CuratedCase), **(values | changes))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", datetime(2026, 11, 28, 11, 58, 30, tzinfo=UTC)),
        (" 90m ", datetime(2026, 11, 28, 10, 30, tzinfo=UTC)),
        ("24h", datetime(2026, 11, 27, 12, tzinfo=UTC)),
        ("2w", datetime(2026, 11, 14, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T08:00:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T08:00:00+02:00", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31T08:00:00Z", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("1900-01-01", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_is_so_long_ago_or_a_date(text: str, expected: datetime) -> None:
    """In UTC where no zone is named."""
    assert moment(text, NOW) == expected.timestamp() * 1000


@pytest.mark.parametrize(
    "text", ["", "soon", "5", "5y", "-5m", "1.5h", "2026-13-01", "9" * 30 + "d"]
)
def test_what_is_no_moment_is_said(text: str) -> None:
    """With what would be one."""
    with pytest.raises(ValueError, match="90m, 24h, 7d"):
        moment(text, NOW)


def test_a_filter_takes_what_fits_all_of_it() -> None:
    """Service, any of the reasons, and time; an empty one takes everything."""
    one = case(reasons=[CaseReason.FALLBACK, CaseReason.DRIFT], curated_ms=100)
    assert CaseFilter().takes(one)
    assert CaseFilter("shop", [CaseReason.DRIFT, CaseReason.LOW_RELEVANCE], 100).takes(one)
    assert not CaseFilter("blog").takes(one)
    assert not CaseFilter(reasons=[CaseReason.LOW_RELEVANCE]).takes(one)
    assert not CaseFilter(since_ms=101).takes(one)


def test_mlflow_gets_prompt_scores_and_feedback() -> None:
    """What is equal in two exports is the input alone: MLflow tells records apart by it."""
    plain = dataset_record(case(prompt="p", domain=None, relevance=None))
    assert plain["inputs"] == {"prompt": "p"}
    assert plain["outputs"]["relevance"] is None
    assert plain["source"]["source_type"] == "CODE"
    assert "expectations" not in plain
    said = CaseFeedback(kind=FeedbackKind.EXPERT_LABEL, value=0.0, comment=None)
    told = dataset_record(case(prompt="p", domain="backend", feedback=said))
    assert told["inputs"] == {"prompt": "p", "domain": "backend"}
    assert told["expectations"] == {"feedback": {"kind": "expert_label", "value": 0.0}}
    assert told["source"]["source_type"] == "HUMAN"
    assert all(isinstance(value, str) for value in told["tags"].values())
