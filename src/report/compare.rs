//! Each row beside the others: what it gains over the baseline, and where quantization does not pay.

use super::number;
use super::rows::Identity;
use super::table::Report;

/// A hundredth is within what timings vary.
const SLOWER: f64 = 0.99;

impl Report {
    /// Compares each row with the baseline, and quantized engines with the fastest float one: among rows of the same [`Report::axes`].
    pub(super) fn compare(&mut self, identities: &[Identity]) {
        let baseline = &identities[self.baseline];
        let is_baseline = |&row: &usize| identities[row].name() == baseline.name();
        for (index, own) in identities.iter().enumerate() {
            let first =
                std::iter::once(self.baseline).chain((0..identities.len()).filter(is_baseline));
            let mut beside = first.filter(|&row| own.is_beside(&identities[row]));
            self.rows[index].against =
                if is_baseline(&index) { Some(index) } else { beside.next() };
        }
        let before = self.rows.clone();
        let mut unlike = Vec::new();
        for (index, row) in self.rows.iter_mut().enumerate() {
            let Some(base) = row.against.map(|against| &before[against]) else { continue };
            for (own, base) in row.timings.iter_mut().zip(&base.timings) {
                let (Some(own), Some(base)) = (own, base) else { continue };
                let speedup = own.throughput / base.throughput;
                own.speedup = speedup.is_finite().then_some(speedup);
            }
            if row.against == Some(index) {
                continue;
            }
            let engines = row.engines.iter().zip(&base.engines);
            let pairs = engines.chain([(&row.simulation, &base.simulation)]);
            let pairs: Vec<_> = pairs.filter_map(|(own, base)| own.zip(*base)).collect();
            let of_same_images = pairs.iter().find(|(own, base)| own.samples == base.samples);
            row.delta_points = of_same_images.map(|(own, base)| (own.top1 - base.top1) * 100.0);
            if let (None, Some((own, other))) = (of_same_images, pairs.first()) {
                unlike.push(format!(
                    "{} has no Δ: its top-1 is of {} images, that of {} of {}.",
                    row.title, own.samples, base.title, other.samples
                ));
            }
        }
        self.notes.extend(unlike);
        for index in 0..self.rows.len() {
            for column in 0..self.timings.len() {
                self.hold_to_float(identities, index, column);
            }
        }
    }

    /// A quantized engine that is slower than a float one of the same runtime, threads and batch failed in what it is for. Where no float engine was timed, and of
    /// figures that do not say what they are of, and of float engines, it is noted where they are slower than the baseline.
    fn hold_to_float(&mut self, identities: &[Identity], index: usize, column: usize) {
        let timing = |row: usize| self.rows[row].timings[column];
        let Some(own) = timing(index) else { return };
        let is_float = |row: &usize| timing(*row).is_some_and(|it| it.quantized == Some(false));
        let throughput = |row: &usize| timing(*row).map_or(0.0, |timing| timing.throughput);
        let fastest = (0..self.rows.len())
            .filter(|&row| identities[index].is_beside(&identities[row]))
            .filter(is_float)
            .max_by(|one, other| throughput(one).total_cmp(&throughput(other)))
            .filter(|_| own.quantized == Some(true));
        let Some(than) = fastest.or(self.rows[index].against) else { return };
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
        match fastest {
            Some(_) => self.failures.push(format!("{line} Quantization does not pay there.")),
            None => self.notes.push(line),
        }
    }
}
