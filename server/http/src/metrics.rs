//! What is counted, in the names that `/metrics` shows.
//!
//! Answers from the kept ones are counted on counters that were looked up beforehand, and stand in no histogram: their
//! time would only hide that of the others.

use std::fmt;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use patchbay_registry::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry as Metric, Unit};

use crate::kept::Kind;

/// In seconds: from a read of memory to the request timeout.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];
/// The route of a request that no route took.
const NO_ROUTE: &str = "none";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

/// The counters of this server.
#[derive(Debug)]
pub(crate) struct Metrics {
    all: Metric,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    /// By the number of the kind: answered with 200, and with 304.
    kept: [[Counter; 2]; Kind::ALL.len()],
    kept_hits: Counter,
    kept_misses: Counter,
}

impl Metrics {
    /// Everything at zero. What the registry counts is read from it at each scrape.
    pub(crate) fn new(registry: Registry) -> Self {
        let mut all = Metric::with_prefix("patchbay");
        let requests = Family::<RequestLabels, Counter>::default();
        let seconds: Family<RouteLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let in_flight = Gauge::default();
        let kept_hits = Counter::default();
        let kept_misses = Counter::default();
        all.register(
            "build",
            "The version of the server",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        all.register(
            "http_requests",
            "Requests answered, by method, route and status",
            requests.clone(),
        );
        all.register_with_unit(
            "http_request_duration",
            "Time to the head of the answer, of requests that were not answered from the kept answers",
            Unit::Seconds,
            seconds.clone(),
        );
        all.register(
            "http_requests_in_flight",
            "Requests being answered",
            in_flight.clone(),
        );
        all.register(
            "http_kept_hits",
            "Requests answered from the kept answers",
            kept_hits.clone(),
        );
        all.register(
            "http_kept_misses",
            "Requests whose answer could have been kept and was not, or not any more",
            kept_misses.clone(),
        );
        all.register_collector(Box::new(OfTheRegistry(registry)));
        let kept = Kind::ALL.map(|kind| {
            [StatusCode::OK, StatusCode::NOT_MODIFIED].map(|status| {
                let labels = request_labels(&Method::GET, Some(kind.route()), status);
                requests.get_or_create_owned(&labels)
            })
        });
        Self {
            all,
            requests,
            seconds,
            in_flight,
            kept,
            kept_hits,
            kept_misses,
        }
    }

    /// Counts a request that was answered from the kept answers.
    pub(crate) fn hit(&self, kind: Kind, status: StatusCode) {
        self.kept_hits.inc();
        self.kept[kind as usize][usize::from(status == StatusCode::NOT_MODIFIED)].inc();
    }

    /// Counts a request whose answer was not kept.
    pub(crate) fn miss(&self) {
        self.kept_misses.inc();
    }

    /// Counts a request as being answered until the guard is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(
        &self,
        method: &Method,
        route: Option<&str>,
        status: StatusCode,
        took: Option<Duration>,
    ) {
        let labels = request_labels(method, route, status);
        self.requests.get_or_create(&labels).inc();
        if let Some(took) = took {
            let labels = RouteLabels {
                method: labels.method,
                route: labels.route,
            };
            self.seconds
                .get_or_create(&labels)
                .observe(took.as_secs_f64());
        }
    }

    /// All of it, as text in the OpenMetrics format.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.all)?;
        Ok(text)
    }
}

/// Counts a request as being answered while it lives, so that one whose client went away is not counted for ever.
#[derive(Debug)]
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn request_labels(method: &Method, route: Option<&str>, status: StatusCode) -> RequestLabels {
    RequestLabels {
        method: method_label(method),
        route: route.unwrap_or(NO_ROUTE).to_owned(),
        status: status.as_u16(),
    }
}

/// Methods are a closed list, or a client could make up labels without end.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What the registry counts.
struct OfTheRegistry(Registry);

impl fmt::Debug for OfTheRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfTheRegistry")
    }
}

impl Collector for OfTheRegistry {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let metrics = self.0.metrics();
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        ConstGauge::new(number(metrics.generation)).encode(encoder.encode_descriptor(
            "generation",
            "The number of the generation that serves",
            None,
            MetricType::Gauge,
        )?)?;
        let mut by_state: MetricEncoder = encoder.encode_descriptor(
            "plugins",
            "Plugins found, by state",
            None,
            MetricType::Gauge,
        )?;
        for (state, count) in &metrics.plugins_by_state {
            let labels = [("state", *state)];
            ConstGauge::new(number(*count)).encode(by_state.encode_family(&labels)?)?;
        }
        for (name, help, count) in [
            ("reloads", "Reloads", metrics.reloads_total),
            (
                "reload_failures",
                "Reloads in which a plugin failed",
                metrics.reload_failures_total,
            ),
            ("hook_calls", "Calls of hooks", metrics.hook_calls_total),
            (
                "hook_failures",
                "Calls of hooks that failed",
                metrics.hook_failures_total,
            ),
        ] {
            let counter: ConstCounter<u64> = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}
