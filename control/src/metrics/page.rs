//! A page of metrics being written: one family of equal lines after the other.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// What a line is told apart by: names and values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// See the [module's head](self). Names begin with `viaduct_`; those of counters get `_total`.
pub(super) struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Page { encoder }
    }

    /// What only grows while the daemon runs.
    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        lines: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, lines, |mut line, value| {
            line.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// The same, of what is measured in fractions.
    pub(super) fn fraction_counters(
        &mut self,
        name: &str,
        help: &str,
        lines: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, lines, |mut line, value| {
            line.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// What goes up and down.
    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        lines: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, lines, |mut line, value| {
            line.encode_gauge(&value)
        })
    }

    /// Histograms: for each, the sum, and the values in each bucket, by the bucket's upper bound.
    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        lines: impl IntoIterator<Item = (Labels, f64, Vec<(f64, u64)>)>,
    ) -> fmt::Result {
        let lines = lines.into_iter().map(|(labels, sum, buckets)| (labels, (sum, buckets)));
        self.family(name, help, MetricType::Histogram, lines, |mut line, (sum, buckets)| {
            let count = buckets.iter().map(|(_, count)| count).sum();
            line.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }

    fn family<T>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        lines: impl IntoIterator<Item = (Labels, T)>,
        write: impl Fn(MetricEncoder<'_>, T) -> fmt::Result,
    ) -> fmt::Result {
        let name = format!("viaduct_{name}");
        let mut family = self.encoder.encode_descriptor(&name, help, None, kind)?;
        for (labels, value) in lines {
            write(family.encode_family(&labels)?, value)?;
        }
        Ok(())
    }
}
