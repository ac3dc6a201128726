//! What the broker counts, in the text format that Prometheus reads (OpenMetrics 1.0). No labels
//! with the names of callers or projects: these are private, and without a bound.

use crate::provider::ProviderError;
use api::credentials::Action;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt::Write as _;
use std::time::Duration;

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds in seconds: AWS takes some tenths, a service in trouble up to the limit.
const BUCKETS: [f64; 8] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 45.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cached {
    action: ActionLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    action: ActionLabel,
    outcome: &'static str,
}

/// A label's value; the action itself is the API's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ActionLabel(Action);

impl EncodeLabelValue for ActionLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(self.0.as_str())
    }
}

/// Counters of requests, and of what was issued.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    answered: Family<Answered, Counter>,
    cached: Family<Cached, Counter>,
    asked: Family<Asked, Counter>,
    took: Histogram,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("redoubt_broker");
        let (answered, cached, asked) = (Family::default(), Family::default(), Family::default());
        let took = Histogram::new(BUCKETS);
        registry.register(
            "answers",
            "Requests for credentials, by HTTP status",
            answered.clone(),
        );
        registry.register(
            "cached",
            "Credentials handed out from the cache",
            cached.clone(),
        );
        registry.register(
            "upstream",
            "Requests to the registry's service",
            asked.clone(),
        );
        registry.register_with_unit(
            "upstream",
            "How long requests to the registry's service took",
            Unit::Seconds,
            took.clone(),
        );
        Metrics {
            registry,
            answered,
            cached,
            asked,
            took,
        }
    }
}

impl Metrics {
    pub(super) fn answered(&self, status: hyper::StatusCode) {
        self.answered
            .get_or_create(&Answered {
                status: status.as_u16(),
            })
            .inc();
    }

    pub(super) fn cached(&self, action: Action) {
        self.cached
            .get_or_create(&Cached {
                action: ActionLabel(action),
            })
            .inc();
    }

    pub(super) fn asked(&self, action: Action, error: Option<&ProviderError>, took: Duration) {
        let outcome = match error {
            None => "issued",
            Some(ProviderError::Project(_) | ProviderError::NoProject { .. }) => "no_project",
            Some(ProviderError::Denied { .. }) => "denied",
            Some(ProviderError::Throttled { .. }) => "throttled",
            Some(ProviderError::TimedOut { .. }) => "timed_out",
            Some(ProviderError::Unavailable { .. } | ProviderError::IssuedExpired) => "unavailable",
        };
        self.asked
            .get_or_create(&Asked {
                action: ActionLabel(action),
                outcome,
            })
            .inc();
        self.took.observe(took.as_secs_f64());
    }

    /// All of them, as [`MEDIA_TYPE`].
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_prometheus_expects() {
        let metrics = Metrics::default();
        metrics.answered(hyper::StatusCode::OK);
        metrics.cached(Action::Pull);
        metrics.asked(
            Action::Push,
            Some(&ProviderError::denied("secret words")),
            Duration::from_millis(70),
        );
        let text = metrics.text();
        for line in [
            "redoubt_broker_answers_total{status=\"200\"} 1",
            "redoubt_broker_cached_total{action=\"pull\"} 1",
            "redoubt_broker_upstream_total{action=\"push\",outcome=\"denied\"} 1",
            "redoubt_broker_upstream_seconds_bucket{le=\"0.1\"} 1",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("secret words"));
    }
}
