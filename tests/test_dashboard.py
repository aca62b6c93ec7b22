"""The Grafana dashboard: of Grafana's schema, and of metrics and labels that the code exports.

No Grafana runs here, but a Prometheus does. The schema is that of Grafana's own Python package: a
dashboard that is read into its classes and written again keeps each field that the schema has, and
loses any other.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client.vendor import STEADY, connected
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_server import Range, serving
from recorded_metrics import record

from segments_async._telemetry.listener import OutcomeKind
from segments_async.results import HeldReason
from segments_async.sandbox import Fault, FixedWindow, Sandbox

FILE = Path(__file__).parent.parent / "docs/grafana.json"
DOCS = FILE.parent / "observability.md"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def lost(before: Any, after: Any, path: str = "$") -> Iterator[str]:
    """Where a value lacks something that it had, or has another one."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(before, list) and isinstance(after, list):
        for index, (one, other) in enumerate(itertools.zip_longest(before, after)):
            yield from lost(one, other, f"{path}[{index}]")
    elif before != after:
        yield path


def through_the_schema(dashboard: dict[str, Any]) -> Any:
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_the_dashboard_is_of_grafanas_schema(dashboard: dict[str, Any]) -> None:
    """Each field is one of Grafana's schema, with a value of its type."""
    assert list(lost(dashboard, through_the_schema(dashboard))) == []


@pytest.mark.parametrize("where", ["dashboard", "panel", "options", "target"])
def test_a_field_that_grafana_does_not_know_is_found(dashboard: dict[str, Any], where: str) -> None:
    """The check above finds a misspelt field at each level."""
    wrong = json.loads(json.dumps(dashboard))
    panel = wrong["panels"][0]
    places = {
        "dashboard": wrong,
        "panel": panel,
        "options": panel["options"],
        "target": panel["targets"][0],
    }
    places[where]["mispelt"] = 1
    assert len(list(lost(wrong, through_the_schema(wrong)))) == 1


def test_panels_stand_side_by_side(dashboard: dict[str, Any]) -> None:
    """Ids are unique, no two panels overlap, none is wider than the grid, each has a sentence."""
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert all(panel["description"].endswith(".") for panel in panels)


async def _exported(monkeypatch: pytest.MonkeyPatch, to: Path) -> dict[str, dict[str, set[str]]]:
    """Names of series as OpenTelemetry's exporter for Prometheus makes them; labels and values."""
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    sandbox = Sandbox(segments=60, rows=2, durations=STEADY, limit=FixedWindow(40, 30))
    sandbox.inject(Fault.LOST_AFTER, method="POST", segment_id=sandbox.segment_ids[7])
    sandbox.inject(Fault.status(500), method="GET", path="export/")
    try:
        async with connected(sandbox) as client:
            await client.bulk_export(sandbox.segment_ids, to)
        text = generate_latest(REGISTRY).decode()
    finally:
        provider.shutdown()
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return {name: labels for name, labels in found.items() if name.startswith("segments_")}


async def test_each_expression_is_of_metrics_that_are_exported(
    dashboard: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Names and labels of all expressions are there in the exporter's text, and documented."""
    exported = await _exported(monkeypatch, tmp_path)
    used: set[str] = set()
    for expression in expressions(dashboard):
        names = set(re.findall(r"\b(segments_\w+)\{", expression))
        labels = set(re.findall(r"(\w+)=~?\"", expression)) - {"job"}
        labels |= set(re.findall(r" by \((\w+)\)", expression)) - {"job", "le"}
        assert names, expression
        for name in names:
            assert name in exported, name
            assert labels <= exported[name].keys(), expression
        used |= names
    documented = DOCS.read_text()
    stems = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exported}
    assert {
        stem for stem in stems if stem not in documented and stem + "_total" not in exported
    } == set()
    assert len(used) == 8, "one of each metric"


@pytest.mark.whole
@pytest.mark.needs("prometheus")
def test_prometheus_has_values_for_each_expression(
    dashboard: dict[str, Any], tmp_path: Path
) -> None:
    """Over a night with faults, each expression has a series with a value, and each fault is seen.

    Prometheus sees no increase in a series that begins at 1: the two exports that failed, and the
    two lost answers, are seen since their series began at 0.
    """
    (tmp_path / "files").mkdir()
    samples = record(tmp_path / "files")
    shown = Range.of(samples, 150)
    peaks: dict[str, dict[str, float]] = {}
    with serving(samples, tmp_path) as prometheus:
        for panel in dashboard["panels"]:
            lines = prometheus.panel(panel, shown)
            assert {line.reference for line in lines} == {one["refId"] for one in panel["targets"]}
            found = {line.name: [at for _, at in line.points if at == at] for line in lines}
            assert all(found.values()), panel["title"]
            peaks[panel["title"]] = {name: max(values) for name, values in found.items()}
    assert all(any(values.values()) for values in peaks.values()), peaks
    assert peaks["Active exports"] == {"active": 160}
    assert peaks["Exported in the last hour"] == {"exported": pytest.approx(156, abs=0.5)}
    assert peaks["Not exported in the last hour"] == {"not exported": pytest.approx(4, abs=0.1)}
    assert peaks["Why there is no file"].keys() == {"ExportFailedError", "SubmitUnknownError"}
    held = peaks["What holds the runs"]
    assert held.keys() == {"rate_limit", "ticket_guard", "vendor_away", "storage_away"}
    assert max(held.values()) < 1.1, "one run is held for all of the time at most"
    assert peaks["Answers of 429, and unknown submits"]["unknown submits"] > 0
    assert peaks["Duration of exports"]["99 %"] < 2_700, "the upper end of the longest's bucket"


def test_values_of_labels_are_those_of_the_code(dashboard: dict[str, Any]) -> None:
    """Values that expressions select are outcomes; the documents have each outcome and reason."""
    text = " ".join(expressions(dashboard))
    selected = {
        one for found in re.findall(r'outcome=~?"([^"]+)"', text) for one in found.split("|")
    }
    assert selected <= {kind.value for kind in OutcomeKind}
    documented = DOCS.read_text()
    assert [kind for kind in OutcomeKind if f"`{kind.value}`" not in documented] == []
    assert [reason for reason in HeldReason if reason.value not in documented] == []


def test_parentheses_and_quotes_are_in_pairs(dashboard: dict[str, Any]) -> None:
    """Expressions close what they open; intervals are Grafana's own or hours."""
    for expression in expressions(dashboard):
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression
        assert expression.count('"') % 2 == 0
        assert set(re.findall(r"\[([^\]]+)\]", expression)) <= {"$__rate_interval", "1h"}
