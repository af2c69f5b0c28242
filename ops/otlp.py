"""A lineage's spans to OpenTelemetry: over OTLP/HTTP to any collector. Needs the extra `otel`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from mmzero_async import __version__
from mmzero_async.config import ConfigError
from mmzero_async.projections.spans import Span, span_id, trace_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

SECONDS = 10.0  # for a collector to take them, tries and all
_PATH = "/v1/traces"  # OTLP/HTTP's own


class NotExported(ConfigError):
    """Spans that no collector has taken: says where, and what to do."""


def export(spans: Sequence[Span], run: str, lineage: str, endpoint: str) -> None:
    """All spans of a lineage, at once. Sent again they bear the same ids. NotExported.

    Args:
        endpoint: a collector's address, http://host:4318; with a path, exactly that one.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ImportError as error:
        raise NotExported(
            f"OpenTelemetry is not installed ({error}): pip install 'mmzero-async[otel]'"
        ) from error
    exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=SECONDS)
    try:
        told = exporter.export(readable(spans, run, lineage))
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]
    if told is not SpanExportResult.SUCCESS:
        raise NotExported(
            f"no collector has taken the spans at {traces_url(endpoint)} within {SECONDS:g} s: is "
            "one listening there for OTLP over HTTP?"
        )


def traces_url(endpoint: str) -> str:
    """ConfigError for what is no http address."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise NotExported(f"--otlp {endpoint}: write http://host:4318")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") or _PATH))


def readable(spans: Sequence[Span], run: str, lineage: str) -> list["ReadableSpan"]:
    """As the SDK's exporters take them."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
    from opentelemetry.trace.status import Status, StatusCode

    trace = trace_id(run, lineage)
    resource = Resource({"service.name": "mmzero-async", "mmzero.run": run})
    scope = InstrumentationScope("mmzero_async", __version__)
    contexts = {
        span.id: SpanContext(
            trace, span_id(run, span), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
        )
        for span in spans
    }
    return [
        ReadableSpan(
            name=span.name,
            context=contexts[span.id],
            parent=contexts[span.parent] if span.parent else None,
            resource=resource,
            attributes=span.attributes,
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.OK),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=scope,
        )
        for span in spans
    ]
