//! Each row beside the others: what it gains over the baseline, and where quantization does not pay.

use super::number;
use super::table::{Accuracy, Report};

/// A hundredth is within what timings vary.
const SLOWER: f64 = 0.99;

impl Report {
    /// Compares each row with the baseline, and quantized engines with the fastest float one.
    pub(super) fn compare(&mut self) {
        let base = self.rows[self.baseline].clone();
        for (index, row) in self.rows.iter_mut().enumerate() {
            let engines = row.engines.iter().zip(&base.engines);
            let mut pairs = engines.chain([(&row.simulation, &base.simulation)]);
            let pair = pairs.find_map(|(own, base)| own.zip(*base));
            if index != self.baseline {
                let points = |(own, base): (Accuracy, Accuracy)| (own.top1 - base.top1) * 100.0;
                row.delta_points = pair.map(points);
            }
            for (own, base) in row.timings.iter_mut().zip(&base.timings) {
                let (Some(own), Some(base)) = (own, base) else { continue };
                let speedup = own.throughput / base.throughput;
                own.speedup = speedup.is_finite().then_some(speedup);
            }
        }
        for index in 0..self.rows.len() {
            for column in 0..self.timings.len() {
                self.hold_to_float(index, column);
            }
        }
    }

    /// A quantized engine that is slower than a float one of the same runtime, threads and batch failed in what it is for. Of figures that do
    /// not say what they are of, and of float engines, it is noted where they are slower than the baseline.
    fn hold_to_float(&mut self, index: usize, column: usize) {
        let timing = |row: usize| self.rows[row].timings[column];
        let Some(own) = timing(index) else { return };
        let is_float = |row: &usize| timing(*row).is_some_and(|it| it.quantized == Some(false));
        let throughput = |row: &usize| timing(*row).map_or(0.0, |timing| timing.throughput);
        let fastest = (0..self.rows.len())
            .filter(is_float)
            .max_by(|one, other| throughput(one).total_cmp(&throughput(other)));
        let quantized = own.quantized == Some(true);
        let than = fastest.filter(|_| quantized).unwrap_or(self.baseline);
        let ratio = own.throughput / throughput(&than);
        if than == index || !ratio.is_finite() || ratio >= SLOWER {
            return;
        }
        let line = format!(
            "{} is slower than {} at batch {}: {}.",
            self.rows[index].title,
            self.rows[than].title,
            self.timings[column].batch,
            number::times(ratio)
        );
        match quantized {
            true => self.failures.push(format!("{line} Quantization does not pay there.")),
            false => self.notes.push(line),
        }
    }
}
