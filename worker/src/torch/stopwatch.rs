//! What parts of a computation take, on a GPU without waiting for it: marks in its queue, read when they are passed anyway.

use std::time::{Duration, Instant};

use tch::Device;

use super::shim::Event;

/// A moment of a computation.
pub struct Mark(Moment);

enum Moment {
    /// Of the CPU.
    Now(Instant),
    /// When a GPU comes to it.
    Passed(Event),
}

impl Mark {
    /// Behind all that was begun on `device` so far. What a GPU cannot mark has no time: no computation fails for that.
    pub fn set(device: Device) -> Self {
        let event = match device {
            Device::Cuda(gpu) => Event::record(gpu).ok(),
            _ => None,
        };
        Self(event.map_or_else(|| Moment::Now(Instant::now()), Moment::Passed))
    }

    fn until(&self, later: &Self) -> Duration {
        match (&self.0, &later.0) {
            (Moment::Now(first), Moment::Now(second)) => *second - *first,
            (Moment::Passed(first), Moment::Passed(second)) => {
                let milliseconds = first.milliseconds(second).unwrap_or(0.0);
                Duration::from_secs_f64(milliseconds.max(0.0) / 1e3)
            }
            _ => Duration::ZERO,
        }
    }
}

/// Spans that are kept as marks.
const MOST: usize = 4096;

/// Sums the times between pairs of marks.
#[derive(Default)]
pub struct Stopwatch {
    pairs: Vec<(Mark, Mark)>,
    sum: Duration,
}

impl Stopwatch {
    /// Takes up a span.
    pub fn add(&mut self, begin: Mark, end: Mark) {
        self.pairs.push((begin, end));
        if self.pairs.len() >= MOST {
            // Passed long ago: no wait.
            self.sum_up(MOST / 2);
        }
    }

    fn sum_up(&mut self, spans: usize) {
        self.sum += self.pairs.drain(..spans).map(|(a, b)| a.until(&b)).sum::<Duration>();
    }

    /// The sum of all spans so far; waits until their ends are passed.
    pub fn total(&mut self) -> Duration {
        self.sum_up(self.pairs.len());
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_up() {
        let mut watch = Stopwatch::default();
        let start = Instant::now();
        for seconds in [1, 2] {
            let end = start + Duration::from_secs(seconds);
            watch.add(Mark(Moment::Now(start)), Mark(Moment::Now(end)));
        }
        assert_eq!(watch.total(), Duration::from_secs(3));
        assert_eq!(watch.total(), Duration::from_secs(3), "each span counts once");
        for _ in 0..3 * MOST {
            watch.add(Mark(Moment::Now(start)), Mark(Moment::Now(start + Duration::from_secs(1))));
        }
        assert!(watch.pairs.len() < MOST);
        assert_eq!(watch.total(), Duration::from_secs(3 + 3 * MOST as u64), "none is lost");
        let mut watch = Stopwatch::default();
        let mark = Mark::set(Device::Cpu);
        watch.add(mark, Mark::set(Device::Cpu));
        assert!(watch.total() < Duration::from_secs(60));
    }
}
