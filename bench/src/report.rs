//! Medians, percentiles, and the table of figures.

use std::time::Duration;

/// Figures, in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Figure {
    what: String,
    measured: String,
    target: String,
    verdict: &'static str,
}

impl Report {
    /// Adds a figure that should be at most `target`, both in `unit`.
    pub(crate) fn at_most(
        &mut self,
        what: impl Into<String>,
        measured: f64,
        target: f64,
        unit: &str,
    ) {
        self.add(
            what.into(),
            format!("{} {unit}", short(measured)),
            format!("< {} {unit}", short(target)),
            measured < target,
        );
    }

    /// Adds a rate that should be at least `target`, both in `unit`.
    pub(crate) fn at_least(
        &mut self,
        what: impl Into<String>,
        measured: f64,
        target: f64,
        unit: &str,
    ) {
        self.add(
            what.into(),
            format!("{} {unit}", short(measured)),
            format!("≥ {} {unit}", short(target)),
            measured >= target,
        );
    }

    /// Adds a ratio that should be at least `target`.
    pub(crate) fn ratio(&mut self, what: impl Into<String>, measured: f64, target: f64) {
        self.add(
            what.into(),
            format!("{measured:.2}"),
            format!("≥ {target}"),
            measured >= target,
        );
    }

    /// Adds how many times a cost is another, which should be at most `target`.
    pub(crate) fn times(&mut self, what: impl Into<String>, measured: f64, target: f64) {
        self.add(
            what.into(),
            format!("{measured:.2}"),
            format!("≤ {target}"),
            measured <= target,
        );
    }

    /// Adds a count that should be zero.
    pub(crate) fn none(&mut self, what: impl Into<String>, measured: u64) {
        self.add(
            what.into(),
            measured.to_string(),
            "0".to_owned(),
            measured == 0,
        );
    }

    /// Adds a figure without a target.
    pub(crate) fn note(&mut self, what: impl Into<String>, measured: impl Into<String>) {
        self.say(Figure {
            what: what.into(),
            measured: measured.into(),
            target: String::new(),
            verdict: "",
        });
    }

    fn add(&mut self, what: String, measured: String, target: String, met: bool) {
        let verdict = if met { "met" } else { "MISSED" };
        self.say(Figure {
            what,
            measured,
            target,
            verdict,
        });
    }

    fn say(&mut self, figure: Figure) {
        eprintln!("  {}: {} {}", figure.what, figure.measured, figure.verdict);
        self.figures.push(figure);
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        let width = |column: fn(&Figure) -> &str, title: &str| {
            self.figures
                .iter()
                .map(|figure| column(figure).chars().count())
                .chain([title.chars().count()])
                .max()
                .unwrap_or(0)
        };
        let what = width(|figure| &figure.what, "figure");
        let measured = width(|figure| &figure.measured, "measured");
        let target = width(|figure| &figure.target, "target");
        println!(
            "| {:what$} | {:>measured$} | {:>target$} |        |",
            "figure", "measured", "target"
        );
        println!(
            "|{}|{}:|{}:|--------|",
            "-".repeat(what + 2),
            "-".repeat(measured + 1),
            "-".repeat(target + 1)
        );
        for figure in &self.figures {
            println!(
                "| {:what$} | {:>measured$} | {:>target$} | {:6} |",
                figure.what, figure.measured, figure.target, figure.verdict
            );
        }
        let missed = self
            .figures
            .iter()
            .filter(|figure| figure.verdict == "MISSED")
            .count();
        if missed > 0 {
            println!("\n{missed} missed");
        }
    }
}

/// A number with as many digits as say something.
fn short(number: f64) -> String {
    if number >= 100.0 || number.fract() == 0.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}

/// The value that `percent` of the sorted values do not exceed; zero of none.
pub(crate) fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted
        .get(rank.max(1) - 1)
        .or(sorted.last())
        .copied()
        .unwrap_or_default()
}

/// The median; zero of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50.0), Duration::from_millis(50));
        assert_eq!(percentile(&sorted, 99.0), Duration::from_millis(99));
        assert_eq!(percentile(&sorted[..1], 99.0), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99.0), Duration::ZERO);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
