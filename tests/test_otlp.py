"""A lineage as OpenTelemetry spans: a pure function of the log, sent to a real HTTP collector."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from builders import records, run_started, whole_tree
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from test_cli import mmzero, write_run
from test_projections import publish_all, step

from mmzero_async.config import Config
from mmzero_async.ops.otlp import NotExported, traces_url
from mmzero_async.projections.spans import Span, span_id, spans, trace_id
from mmzero_async.schemas.events import Event, GroupRejected, Rendered, WorkAbandoned

LOG: list[Event] = [
    run_started(Config(), "r"),
    *publish_all(),
    *whole_tree("g0", proposals=2, drawings=2),
    step("solver", 1, ["g0.s0.d0", "g7.s0.d0", "g0.s1.d1"]),
    GroupRejected(role="coder", group="g0.s1", reason="stale"),
    WorkAbandoned(work="render/g0.s9.d9", reason="boom", attempts=3),
]


def by_id(found: list[Span]) -> dict[str, Span]:
    assert len({span.id for span in found}) == len(found)
    return {span.id: span for span in found}


def test_every_piece_of_work_is_a_span_below_what_it_came_from() -> None:
    found = by_id(spans(records(LOG), "g0"))
    assert found["code/g0.s1"].parent == "propose/g0" and found["propose/g0"].parent == "g0"
    assert found["render/g0.s1.d0"].parent == "code/g0.s1"
    assert found["answer/g0.s1.d0/hard"].parent == "render/g0.s1.d0"
    trained = [span for span in found.values() if span.id.startswith("train/")]
    assert [span.parent for span in trained] == ["answer/g0.s0.d0/hard", "answer/g0.s1.d1/hard"]
    assert found["reject/coder/g0.s1"].error == "stale"
    assert found["reject/coder/g0.s1"].parent == "code/g0.s1"
    assert found["abandon/render/g0.s9.d9"].parent == "g0", "what it failed at was never written"
    root = found["g0"]
    assert all(root.start_ns <= s.start_ns <= s.end_ns <= root.end_ns for s in found.values())
    for stage, count in {"propose": 1, "code": 2, "render": 4, "answer": 8}.items():
        assert sum(name.startswith(f"{stage}/") for name in found) == count
    assert spans([], "g0") == []


def test_a_failed_rendering_is_an_error_and_lasted_as_long_as_it_says() -> None:
    failed = Rendered(drawing="g0.s0.d0", renderer="x", failure="timeout", seconds=2.5)
    span = by_id(spans(records([failed]), "g0.s0.d0"))["render/g0.s0.d0"]
    assert span.error == "timeout" and span.end_ns - span.start_ns == 2_500_000_000


def test_ids_are_the_same_again_and_differ_between_runs_and_spans() -> None:
    found = spans(records(LOG), "g0")
    assert len({span_id("r", span) for span in found}) == len(found)
    assert trace_id("r", "g0.s0.d1") == trace_id("r", "g0") != trace_id("other", "g0")
    assert span_id("r", found[0]) != span_id("other", found[0])
    assert spans(records(LOG), "g0") == found


@dataclass
class Collector:
    url: str
    status: int = 200
    got: list[tuple[str, str, bytes]] = field(default_factory=list)  # path, type, body


@contextlib.contextmanager
def collector(status: int = 200) -> Iterator[Collector]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            here.got.append((self.path, self.headers["Content-Type"], body))
            self.send_response(here.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Collector(f"http://127.0.0.1:{server.server_port}", status)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_lineage_arrives_at_a_collector_over_http(tmp_path: Path) -> None:
    write_run(tmp_path / "r", LOG[1:])
    with collector() as here:
        told = mmzero("trace", tmp_path / "r", "g0.s1", "--otlp", here.url)
    assert told.returncode == 0, told.stderr
    ((path, sort, body),) = here.got
    assert path == "/v1/traces" and sort == "application/x-protobuf"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    about = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert about["service.name"] == "mmzero-async"
    (scope,) = resource.scope_spans
    sent = {span.span_id: span for span in scope.spans}
    (trace,) = {span.trace_id for span in sent.values()}
    assert trace.hex() in told.stdout and str(len(sent)) in told.stdout
    names = {span.name for span in sent.values()}
    assert {"lineage g0", "propose g0", "code g0.s1", "render g0.s1.d1"} < names
    assert "code g0.s0" not in names, "another proposal's"
    assert [span.name for span in sent.values()].count("train solver step 1") == 1
    parents = {span.name: span.parent_span_id for span in sent.values()}
    assert not parents["lineage g0"]
    assert sent[parents["render g0.s1.d1"]].name == "code g0.s1"
    (rejected,) = [span for span in sent.values() if span.name == "reject coder g0.s1"]
    assert rejected.status.code == 2 and rejected.status.message == "stale"


def test_what_cannot_be_sent_is_a_clear_error(tmp_path: Path) -> None:
    write_run(tmp_path / "r", LOG[1:])
    told = mmzero("trace", tmp_path / "r", "g0", "--otlp", "localhost:4318")
    assert told.returncode == 1 and "write http://host:4318" in told.stderr
    told = mmzero("trace", tmp_path / "r", "g99", "--otlp", "http://127.0.0.1:1")
    assert told.returncode == 1 and "knows nothing of g99" in told.stderr
    with collector(status=400) as here:
        told = mmzero("trace", tmp_path / "r", "g0", "--otlp", here.url)
    assert told.returncode == 1 and f"{here.url}/v1/traces" in told.stderr


def test_an_address_with_a_path_is_taken_as_it_is() -> None:
    assert traces_url("http://h:4318") == traces_url("http://h:4318/") == "http://h:4318/v1/traces"
    assert traces_url("https://h/x/otlp") == "https://h/x/otlp"
    with pytest.raises(NotExported):
        traces_url("grpc://h:4317")
