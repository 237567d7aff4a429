//! Lines of log, as text or as JSON. A line that is written within a call says in which trace and span.

use std::fmt;
use std::io::IsTerminal;
use std::time::SystemTime;

use opentelemetry::trace::{SpanId, TraceContextExt, TraceId, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For programs: an object a line
    Json,
}

/// Checks what `--log-level` takes.
pub(super) fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Begins to log.
pub(super) fn start(service: &'static str, format: LogFormat, filter: &str) {
    // Spans become OpenTelemetry's whatever is logged: a trace goes on through a program that is told to be quiet. No
    // exporter is set up; the ids are what is wanted.
    let tracer = SdkTracerProvider::builder().build().tracer("demo-services");
    let spans = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
    let spans = spans.with_tracked_inactivity(false);
    let wanted = filter_fn(|metadata| metadata.is_span() && *metadata.level() <= Level::INFO);
    let spans = spans.with_filter(wanted.with_max_level_hint(LevelFilter::INFO));

    // no-color.org: any value but the empty one counts.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = format == LogFormat::Text && std::io::stderr().is_terminal() && !no_color;
    let lines = Lines { service, format, text: Format::default().with_ansi(color) };
    let lines =
        tracing_subscriber::fmt::layer().event_format(lines).with_writer(std::io::stderr).with_ansi(color);
    let lines = lines.with_filter(EnvFilter::new(filter));
    // An error means only that logging has been started already.
    let _ = tracing_subscriber::registry().with(spans).with(lines).try_init();
}

/// Writes events.
struct Lines {
    service: &'static str,
    format: LogFormat,
    text: Format,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.format {
            LogFormat::Text => {
                let Some((trace, span)) = ids() else {
                    return self.text.format_event(context, writer, event);
                };
                let mut line = String::new();
                self.text.format_event(context, Writer::new(&mut line), event)?;
                writeln!(writer, "{} trace_id={trace} span_id={span}", line.trim_end())
            }
            LogFormat::Json => {
                let line = Line::of(self.service, event);
                // What cannot be written as JSON would be lost: a map has strings for keys and finite numbers here.
                let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
                writeln!(writer, "{line}")
            }
        }
    }
}

/// The trace and the span in which this is called.
fn ids() -> Option<(TraceId, SpanId)> {
    let context = Span::current().context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| (ids.trace_id(), ids.span_id()))
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service: &'a str,
    target: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
}

impl<'a> Line<'a> {
    fn of(service: &'a str, event: &Event<'a>) -> Line<'a> {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let ids = ids();
        Line {
            timestamp: humantime::format_rfc3339_micros(SystemTime::now()).to_string(),
            level: metadata.level().as_str(),
            service,
            target: metadata.target(),
            message: fields.message,
            trace_id: ids.map(|(trace, _)| trace.to_string()),
            span_id: ids.map(|(_, span)| span.to_string()),
            fields: fields.others,
        }
    }
}

/// The fields of an event as JSON.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.set(field, format!("{value:?}")),
        }
    }
}
