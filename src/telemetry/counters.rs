//! Counters and gauges with fixed label values: one atomic per combination, read by an observable
//! instrument.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::instruments::Instrument;

/// A counter with up to two labels.
#[derive(Debug)]
pub(super) struct Counters {
    first: Vec<&'static str>,
    second: Vec<&'static str>,
    cells: Arc<[AtomicU64]>,
}

impl Counters {
    /// A counter with one label.
    pub(super) fn by(
        meter: &Meter,
        instrument: Instrument,
        label: &'static str,
        words: Vec<&'static str>,
    ) -> Self {
        Self::by_two(meter, instrument, (label, words), ("", vec![""]))
    }

    /// A counter with two labels.
    pub(super) fn by_two(
        meter: &Meter,
        instrument: Instrument,
        (label, first): (&'static str, Vec<&'static str>),
        (other, second): (&'static str, Vec<&'static str>),
    ) -> Self {
        let cells: Arc<[AtomicU64]> = (0..first.len() * second.len())
            .map(|_| AtomicU64::new(0))
            .collect();
        let labels = labels((label, &first), (other, &second));
        let counted = Arc::clone(&cells);
        let _ = meter
            .u64_observable_counter(instrument.name)
            .with_unit(instrument.unit)
            .with_description(instrument.help)
            .with_callback(move |observer| {
                for (labels, cell) in labels.iter().zip(counted.iter()) {
                    observer.observe(cell.load(Ordering::Relaxed), labels);
                }
            })
            .build();
        Self {
            first,
            second,
            cells,
        }
    }

    /// Adds one to the cell of these label indexes.
    pub(super) fn increment(&self, first: usize, second: usize) {
        self.add(first, second, 1);
    }

    pub(super) fn add(&self, first: usize, second: usize, count: u64) {
        if let Some(cell) = self.cells.get(first * self.second.len() + second) {
            cell.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Adds one to the cell of this label value. Unknown values are ignored.
    pub(super) fn increment_label(&self, word: &str) {
        if let Some(place) = self.first.iter().position(|known| *known == word) {
            self.increment(place, 0);
        }
    }

    /// Adds one to the cell of these label values. Unknown values are ignored.
    pub(super) fn increment_labels(&self, first: &str, second: &str) {
        let place = |words: &[&str], word: &str| words.iter().position(|known| *known == word);
        if let (Some(first), Some(second)) =
            (place(&self.first, first), place(&self.second, second))
        {
            self.increment(first, second);
        }
    }
}

/// A gauge with two labels.
#[derive(Debug)]
pub(super) struct Gauges {
    width: usize,
    cells: Arc<[AtomicI64]>,
}

/// Counts as one in a gauge until it is dropped.
#[derive(Debug)]
pub struct GaugeGuard {
    cells: Arc<[AtomicI64]>,
    cell: usize,
}

impl Gauges {
    pub(super) fn by_two(
        meter: &Meter,
        instrument: Instrument,
        first: (&'static str, &[&'static str]),
        second: (&'static str, &[&'static str]),
    ) -> Self {
        let cells: Arc<[AtomicI64]> = (0..first.1.len() * second.1.len())
            .map(|_| AtomicI64::new(0))
            .collect();
        let (labels, width) = (labels(first, second), second.1.len());
        let counted = Arc::clone(&cells);
        let _ = meter
            .i64_observable_up_down_counter(instrument.name)
            .with_unit(instrument.unit)
            .with_description(instrument.help)
            .with_callback(move |observer| {
                for (labels, cell) in labels.iter().zip(counted.iter()) {
                    observer.observe(cell.load(Ordering::Relaxed), labels);
                }
            })
            .build();
        Self { width, cells }
    }

    pub(super) fn enter(&self, first: usize, second: usize) -> GaugeGuard {
        let (cells, cell) = (Arc::clone(&self.cells), first * self.width + second);
        if let Some(cell) = cells.get(cell) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        GaugeGuard { cells, cell }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        if let Some(cell) = self.cells.get(self.cell) {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The label sets of all cells, built once.
fn labels(
    (label, first): (&'static str, &[&'static str]),
    (other, second): (&'static str, &[&'static str]),
) -> Vec<Vec<KeyValue>> {
    let pairs = first
        .iter()
        .flat_map(|one| second.iter().map(move |two| (*one, *two)));
    pairs
        .map(|(one, two)| {
            let both = [(label, one), (other, two)];
            let named = both.into_iter().filter(|(label, _)| !label.is_empty());
            named
                .map(|(label, word)| KeyValue::new(label, word))
                .collect()
        })
        .collect()
}
