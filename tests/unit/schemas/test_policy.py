"""The gate policy: what is refused and how it is said, objectives, the hash."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.drift import DriftFeature, DriftReference
from schemas.errors import PolicyError
from schemas.policy import (
    Against,
    GateRole,
    Metric,
    Objective,
    Policy,
    Statistic,
    default_policy,
    load_policy,
    parse_policy,
)
from tests.support.samples import sample

DEFAULT = Path(__file__).parents[3] / "schemas" / "policy.default.yaml"
TEXT = DEFAULT.read_text(encoding="utf-8")


def data() -> dict[str, Any]:
    """The default policy as plain data, new at each call."""
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    return loaded


def at(path: str, value: Any) -> dict[str, Any]:
    """The default policy with another value at a path such as ``gates.0.name``."""
    root = data()
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    node: Any = root
    for part in way:
        node = node[part]
    if value is LEFT_OUT:
        del node[last]
    else:
        node[last] = value
    return root


LEFT_OUT = object()


def segment(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "s", "attribute": "plan", "values": ["pro"], **fields}]


# path changed, new value, key that the error names, part of its reason
WRONG_VALUES = [
    # wrong and missing keys
    ("alfa", 0.1, "alfa", "unknown field"),
    ("gates.0.treshold", 1, "gates[0].treshold", "unknown field"),
    ("windows.size", 1, "windows.size", "unknown field"),
    ("deployments.1.encoder", "tensorrt", "deployments[1].encoder", "unknown field"),
    ("blue", LEFT_OUT, "blue", "missing required field"),
    ("stages.1.percent", LEFT_OUT, "stages[1].percent", "missing required field"),
    # wrong types
    ("alpha", "0.05", "alpha", "Expected `float`, got `str`"),
    ("alpha", True, "alpha", "Expected `float`, got `bool`"),
    ("gates", {}, "gates", "Expected `array`, got `object`"),
    ("stages.2", 50, "stages[2]", "Expected `object`, got `int`"),
    ("blue", None, "blue", "Expected `str`, got `null`"),
    # values outside their range
    ("alpha", 0, "alpha", "> 0.0"),
    ("alpha", 0.5, "alpha", "< 0.5"),
    ("alpha", float("nan"), "alpha", "> 0.0"),
    ("gates", [], "gates", "length >= 1"),
    ("stages", [], "stages", "length >= 1"),
    ("stages.1.percent", 101, "stages[1].percent", "<= 100.0"),
    ("stages.1.percent", -1, "stages[1].percent", ">= 0.0"),
    ("stages.1.max_seconds", float("inf"), "stages[1].max_seconds", "<= 31536000.0"),
    ("deployments.1.semantic_weight", 1.1, "deployments[1].semantic_weight", "<= 1.0"),
    ("deployments.1.kind", "magic", "deployments[1].kind", "Invalid enum value 'magic'"),
    ("deployments.0.name", "a b", "deployments[0].name", "matching regex"),
    ("gates.0.name", "Latency", "gates[0].name", "matching regex"),
    ("gates.0.min_samples", 0, "gates[0].min_samples", ">= 1"),
    ("gates.1.floor", float("inf"), "gates[1].floor", "<= 1000000000.0"),
    ("gates.4.sustained_seconds", float("inf"), "gates[4].sustained_seconds", "<= 31536000.0"),
    ("gates.5.warmup_seconds", float("inf"), "gates[5].warmup_seconds", "<= 31536000.0"),
    ("gates.0.role", "police", "gates[0].role", "Invalid enum value 'police'"),
    ("gates.0.metric", "speed", "gates[0].metric", "Invalid enum value 'speed'"),
    ("windows.pane_seconds", 0, "windows.pane_seconds", ">= 0.1"),
    ("windows.window_seconds", float("inf"), "windows.window_seconds", "<= 86400.0"),
    ("confirm_seconds", 0, "confirm_seconds", "> 0.0"),
    ("segments", segment(values=[]), "segments[0].values", "length >= 1"),
    ("segments", segment(values=[float("nan")]), "segments[0].values", "must be finite"),
    ("segments", segment(force="blue"), "segments[0].force", "matching regex"),
    # contradictions
    ("blue", "azure", "blue", "no deployment is called 'azure'; there are: baseline, semantic"),
    ("green", "baseline", "green", "blue and green are both 'baseline'"),
    ("deployments.1.name", "baseline", "deployments", "the name 'baseline' is used twice"),
    ("gates.1.name", "latency-p95", "gates", "the name 'latency-p95' is used twice"),
    ("segments", segment() * 2, "segments", "the name 's' is used twice"),
    ("deployments.1.semantic_weight", 0, "deployments[1].semantic_weight", "needs a share > 0"),
    ("stages.2.percent", 25, "stages[2].percent", "25 does not rise over the stage before"),
    ("stages.3.percent", 99, "stages[3].percent", "the last stage must be 100"),
    ("stages.1.max_seconds", 900, "stages[1].max_seconds", "is not above min_seconds"),
    ("stages.1.shadow_percent", 5, "stages[1].shadow_percent", "only a stage at 0 %"),
    ("windows.hop_seconds", 3, "windows.hop_seconds", "not a whole number of panes"),
    ("windows.window_seconds", 65, "windows.window_seconds", "not a whole number of hops"),
    ("windows.window_seconds", 1210, "windows.pane_seconds", "more than 600 panes a window"),
    ("segments", [{**segment()[0], "name": "all"}], "segments[0].name", "the name of a total"),
    ("holdback_percent", 50, "holdback_percent", "no more users than the one before"),
    ("holdback_percent", 100, "holdback_percent", "< 100"),
    ("rollback_window_seconds", -1, "rollback_window_seconds", ">= 0"),
    ("freezes", [{"from": "tomorrow", "to": "2026-12-27T00:00:00Z"}], "freezes[0]", "RFC 3339"),
    (
        "freezes",
        [{"from": "2026-12-24T00:00:00", "to": "2026-12-27T00:00:00Z"}],
        "freezes[0]",
        "is no RFC 3339 time with a zone",
    ),
    (
        "freezes",
        [{"from": "2026-12-24T00:00:00Z", "to": "2026-12-24T01:00:00+02:00"}],
        "freezes[0].to",
        "is not after its from",
    ),
    ("stages.1.segments", ["pro"], "stages[1].segments", "no segment 'pro'; there are: none"),
    ("mode", "experiment", "stages", "an experiment has one stage with a share"),
    ("mode", "trial", "mode", "Invalid enum value 'trial'"),
    ("gates.0.objective", "< 0.5", "gates[0].objective", "write '<= 0.5', '>= 0.7'"),
    ("gates.0.objective", "<= ٣", "gates[0].objective", "is not an objective"),
    ("gates.1.objective", "<= 10%", "gates[1].objective", "a relative objective needs a sign"),
    ("gates.0.objective", "<= +0.5", "gates[0].objective", "an absolute objective has no sign"),
    ("gates.1.against", LEFT_OUT, "gates[1].against", "a relative objective needs it"),
    ("gates.0.against", "control", "gates[0].against", "goes with a relative objective"),
    ("gates.0.statistic", "rate", "gates[0].statistic", "cannot be judged by rate"),
    ("gates.2.statistic", "mean", "gates[2].statistic", "system_error cannot be judged by mean"),
    ("gates.1.statistic", "p95", "gates[1].statistic", "compares means"),
    ("gates.1.against", "rules", "gates[1].against", "only the score has a rules value"),
    ("gates.2.objective", "<= 1.5", "gates[2].objective", "a rate lies in [0, 1], not at 1.5"),
    ("gates.0.objective", ">= 0.5", "gates[0].objective", "a quantile has an upper limit"),
    ("gates.0.floor", 0.1, "gates[0].floor", "goes with a relative objective"),
    ("gates.9.sustained_seconds", 9, "gates[9].sustained_seconds", "no breach to sustain"),
]


@pytest.mark.parametrize(
    ("path", "value", "key", "reason"),
    WRONG_VALUES,
    ids=[f"{path}={value!r:.24}" for path, value, *_ in WRONG_VALUES],
)
def test_a_wrong_value_is_refused_with_file_key_and_reason(
    path: str, value: Any, key: str, reason: str
) -> None:
    """One thing wrong in the default policy: the error leads to it and says what is wrong."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(yaml.safe_dump(at(path, value), allow_unicode=True), file="my.yaml")
    message = str(caught.value)
    assert message.startswith(f"my.yaml: {key}: "), message
    assert reason in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("gates.2.objective", "<= 0"),
        ("gates.2.objective", "<= 1"),
        ("gates.0.objective", " <=0.5 "),
        ("deployments.0.semantic_weight", 0),
        ("stages.1.min_seconds", 0),
        ("stages.0.shadow_percent", 0),
        ("segments", segment(values=["pro", True, 1, 2.5], force="candidate")),
        ("confirm_seconds", 0.5),
        ("holdback_percent", 49.9),
        ("rollback_window_seconds", 0),
        ("freezes", [{"from": "2026-12-24T00:00:00Z", "to": "2026-12-24T03:00:00+02:00"}]),
    ],
)
def test_a_value_at_its_limit_is_taken(path: str, value: Any) -> None:
    """The limits that errors name are themselves allowed."""
    parse_policy(yaml.safe_dump(at(path, value)), file="my.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a policy is a mapping, this is NoneType"),
        ("- 1", "a policy is a mapping, this is list"),
        ("blue: [", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML: expected a single document"),
        (TEXT + "\nalpha: 0.1", "the key 'alpha' is given twice"),
        (TEXT.replace("pane_seconds: 2", "pane_seconds: 2, pane_seconds: 2"), "given twice"),
        (TEXT + "\n1: 2", "a key must be text; put it in quotes"),
        (TEXT + "\nyes: 2", "a key must be text; put it in quotes"),
        (TEXT + "\n? [a, b]\n: 2", "a key must be text; put it in quotes"),
        (TEXT + "\n? {a: b}\n: 2", "a key must be text; put it in quotes"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: " + "[" * 5_000 + "]" * 5_000, "not YAML: nested too deeply"),
        (TEXT + "\nsegments: &a [*a]", "segments[0]: Expected `object`, got `array`"),
    ],
    ids=range(14),
)
def test_what_is_no_policy_at_all_is_refused(text: str, reason: str) -> None:
    """Broken, ambiguous or hostile YAML ends in the one error, with the file's name."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, file="my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert reason in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_a_policy_error(text: str) -> None:
    """Whatever a file holds, reading it ends in the one error that callers handle."""
    with pytest.raises(PolicyError):
        parse_policy(text, file="my.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is no text are policy errors with their path."""
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.yaml", tmp_path, binary):
        with pytest.raises(PolicyError, match="cannot be read") as caught:
            load_policy(path)
        assert str(caught.value).startswith(str(path))


def test_the_default_policy_holds_the_numbers_it_promises() -> None:
    """Limits, roles and stages of the policy that ships."""
    policy = default_policy()
    assert policy == load_policy(DEFAULT)
    assert [stage.percent for stage in policy.stages] == [0, 25, 50, 100]
    assert policy.stages[0].shadow_percent > 0
    gates = {
        (g.metric, g.statistic, g.against): (g.parsed.upper, g.parsed.limit, g.role)
        for g in policy.gates
    }
    guard, mean, rate = GateRole.GUARDRAIL, Statistic.MEAN, Statistic.RATE
    assert gates[(Metric.PROCESSING_SECONDS, Statistic.P95, None)] == (True, 0.5, guard)
    assert gates[(Metric.PROCESSING_SECONDS, mean, Against.CONTROL)] == (True, 0.10, guard)
    assert gates[(Metric.SYSTEM_ERROR, rate, None)] == (True, 0.001, guard)
    assert gates[(Metric.SEMANTIC_ERROR, rate, None)] == (True, 0.01, guard)
    assert gates[(Metric.ERROR, rate, None)] == (True, 0.01, guard)
    assert gates[(Metric.CACHE_HIT, rate, None)] == (False, 0.7, GateRole.SIGNAL)
    assert gates[(Metric.COHERENCE, mean, None)] == (False, 0.7, guard)
    assert gates[(Metric.RELEVANCE, mean, None)] == (False, 0.6, guard)
    assert gates[(Metric.SCORE, mean, Against.CONTROL)] == (False, -0.05, guard)
    assert gates[(Metric.SCORE, mean, Against.RULES)] == (False, 0.02, GateRole.PROMOTION)
    sustained = next(g for g in policy.gates if g.metric is Metric.ERROR)
    assert sustained.sustained_seconds == 300


def test_a_deployment_is_found_by_name() -> None:
    """Known names give the deployment, others None."""
    policy = default_policy()
    semantic = policy.deployment("semantic")
    assert semantic is not None
    assert semantic.semantic_weight == 0.3
    assert policy.deployment("nothing") is None


# --- stages and modes --------------------------------------------------------------------------


def staged(*stages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The default policy with other stages, and three segments, one of them forced."""
    named = [segment(name=name)[0] for name in ("staff", "beta")]
    forced = segment(name="vip", force="control")
    made = [{"min_seconds": 60, **stage} for stage in stages]
    return {**data(), "segments": [*named, *forced], "stages": made, **changes}


SHADOW, ALL = {"percent": 0, "shadow_percent": 25}, {"percent": 100}


def only(percent: float, *names: str) -> dict[str, Any]:
    return {"percent": percent, "segments": list(names)}


@pytest.mark.parametrize(
    "stages",
    [
        [SHADOW, only(100, "staff"), {"percent": 25}, ALL],
        [only(10, "staff"), only(50, "staff"), only(50, "staff", "beta"), ALL],
        [{**SHADOW, "segments": ["staff"]}, {"percent": 1}, ALL],
        [only(100, "staff"), ALL],
    ],
)
def test_stages_may_begin_with_segments(stages: list[dict[str, Any]]) -> None:
    """Staff first, then everybody: the users of a stage only become more (M51)."""
    parse_policy(yaml.safe_dump(staged(*stages)), file="my.yaml")


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ([only(50, "staff"), only(50, "staff"), ALL], "50 does not rise"),
        ([{"percent": 25}, only(50, "staff"), ALL], "stages[1].segments: leaves out users"),
        ([only(25, "staff"), only(50, "beta"), ALL], "stages[1].segments: leaves out users"),
        ([only(25, "staff"), {"percent": 0}, ALL], "stages[1].percent: only the first"),
        ([SHADOW, only(100, "staff")], "stages[1].segments: the last stage is for everybody"),
        ([only(25, "vip"), ALL], "stages[0].segments: 'vip' is forced to an arm"),
        ([only(25, "pro"), ALL], "no segment 'pro'; there are: beta, staff, vip"),
    ],
)
def test_stages_never_take_users_away_unsaid(stages: list[dict[str, Any]], reason: str) -> None:
    """What would take green from users, but for the documented case, is refused."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(yaml.safe_dump(staged(*stages)), file="my.yaml")
    assert reason in str(caught.value)


def test_an_experiment_has_a_stage_of_half_the_users() -> None:
    """Its percentage may be left out, in the stage with a share and in the shadow (M12, M49)."""
    text = yaml.safe_dump(staged({"shadow_percent": 25}, {}, mode="experiment"))
    assert [s.percent for s in parse_policy(text, file="my.yaml").stages] == [0, 50]


@pytest.mark.parametrize(
    ("stages", "changes", "reason"),
    [
        ([{"percent": 25}, {"percent": 50}], {}, "one stage with a share"),
        ([SHADOW], {}, "one stage with a share"),
        ([ALL], {}, "stages[0].percent: an experiment needs users who stay on blue"),
        ([{"percent": 50}], {"holdback_percent": 5}, "holdback_percent"),
        ([{"percent": 50}], {"gates": data()["gates"][:3]}, "needs a promotion gate"),
    ],
)
def test_an_experiment_that_nobody_can_win_is_refused(
    stages: list[dict[str, Any]], changes: dict[str, Any], reason: str
) -> None:
    """It needs one split, somebody on each side of it, and a gate to win by."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(yaml.safe_dump(staged(*stages, mode="experiment", **changes)), file="my.yaml")
    assert reason in str(caught.value)


# --- objectives --------------------------------------------------------------------------------

numbers = st.decimals(min_value=0, max_value=999_999, places=3, allow_nan=False)
spaces = st.text(" \t", max_size=3)


@given(st.sampled_from(["<=", ">="]), numbers, spaces, spaces)
def test_an_absolute_objective_keeps_its_number(
    op: str, number: Any, before: str, between: str
) -> None:
    """``<= 0.5``: the direction and the number, whatever the spaces."""
    parsed = Objective.parse(f"{before}{op}{between}{number}{before}")
    assert parsed == Objective(upper=op == "<=", limit=float(number), relative=False)


@given(st.sampled_from(["<=", ">="]), st.sampled_from("+-"), numbers, spaces)
def test_a_relative_objective_is_a_fraction(op: str, sign: str, number: Any, between: str) -> None:
    """``<= +10%``: the limit is a hundredth of the number, with its sign."""
    parsed = Objective.parse(f"{op}{between}{sign}{number}{between}%")
    assert parsed.upper == (op == "<=")
    assert parsed.relative
    assert parsed.limit == pytest.approx(float(f"{sign}{number}") / 100)


@given(st.text(max_size=20) | st.text("<>=+-%. 0123456789", max_size=12))
def test_an_objective_is_finite_or_refused(text: str) -> None:
    """Any other text is a ValueError that shows it; a text that is taken gives a finite limit."""
    try:
        parsed = Objective.parse(text)
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017 - most texts, but not all, are refused
    else:
        assert abs(parsed.limit) < 1e10
        assert parsed.relative == ("%" in text)


def test_an_objective_too_large_for_a_float_is_refused() -> None:
    """Enough digits make infinity, which nothing would ever breach."""
    with pytest.raises(ValueError, match="is not an objective"):
        Objective.parse("<= " + "9" * 400)


# --- the hash ----------------------------------------------------------------------------------


def shuffled(node: Any, rng: random.Random) -> Any:
    """The same data with the keys of every mapping in another order."""
    if isinstance(node, dict):
        keys = rng.sample(sorted(node), len(node))
        return {key: shuffled(node[key], rng) for key in keys}
    return [shuffled(item, rng) for item in node] if isinstance(node, list) else node


@settings(max_examples=50)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from([True, False, None]),
    st.integers(2, 8),
    st.integers(20, 200),
)
def test_the_hash_is_that_of_the_meaning(
    rng: random.Random, flow: bool | None, indent: int, width: int
) -> None:
    """Key order, style, indentation, comments and line width of the YAML do not change it."""
    text = yaml.safe_dump(
        shuffled(data(), rng),
        default_flow_style=flow,
        indent=indent,
        width=width,
        sort_keys=False,
    )
    again = parse_policy(f"# a comment\n{text}", file="again.yaml")
    assert again == default_policy()
    assert again.hash == default_policy().hash


def test_a_value_written_out_equals_the_default_it_has_anyway() -> None:
    """Leaving a key out and writing its default value are the same policy, 2 and 2.0 as well."""
    explicit = data() | {"confirm_seconds": 30.0, "segments": []}
    explicit["windows"]["pane_seconds"] = 2.0
    assert parse_policy(yaml.safe_dump(explicit), file="f").hash == default_policy().hash


def leaves(node: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value that is no mapping or list."""
    if isinstance(node, dict):
        return [leaf for key, child in node.items() for leaf in leaves(child, (*way, key))]
    if isinstance(node, list):
        return [leaf for i, child in enumerate(node) for leaf in leaves(child, (*way, i))]
    return [way]


FULL = msgspec.to_builtins(default_policy()) | {"segments": segment(force="control")}
"""Every value of the default policy, default ones too, and a segment."""


@pytest.mark.parametrize("way", leaves(FULL), ids=lambda way: ".".join(map(str, way)))
def test_the_hash_changes_with_every_value(way: tuple[Any, ...]) -> None:
    """There is no value of a policy that could be changed without changing its hash."""
    changed = msgspec.json.decode(msgspec.json.encode(FULL))
    node = changed
    for part in way[:-1]:
        node = node[part]
    node[way[-1]] = other(node[way[-1]], way[-1])
    before, after = msgspec.convert(FULL, Policy), msgspec.convert(changed, Policy)
    assert before.hash != after.hash


OTHER = {
    "kind": {"rules": "semantic", "semantic": "rules"},
    "role": {"guardrail": "signal", "signal": "promotion", "promotion": "signal"},
    "against": {None: "control", "control": "rules", "rules": "control"},
    "statistic": {"mean": "p50", "rate": "p50", "p95": "p99", "count": "max", "max": "count"},
    "force": {"control": "candidate"},
    "mode": {"rollout": "experiment"},
    "arm": {"all": "control"},
    "max_samples": {None: 5000},
    "reference": {None: msgspec.to_builtins(sample(DriftReference))},
}


def other(value: Any, key: Any) -> Any:
    """Another value that the type allows."""
    if key in OTHER:
        return OTHER[key][value]
    if isinstance(key, int) and value in set(DriftFeature):
        return "error" if value != "error" else "latency"
    if key == "metric":
        return "score" if value != "score" else "error"
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 if value else 0.5
    return value + (1 if isinstance(value, int) else "x")


def test_a_policy_survives_the_way_in_a_command() -> None:
    """A policy that is sent to the monitor as JSON arrives as the same policy, hash included."""
    sent = msgspec.convert(FULL, Policy)
    arrived = msgspec.json.decode(msgspec.json.encode(sent), type=Policy)
    assert (arrived, arrived.hash) == (sent, sent.hash)
