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
    }

    /// The sum of all spans so far; waits until their ends are passed.
    pub fn total(&mut self) -> Duration {
        self.sum += self.pairs.drain(..).map(|(begin, end)| begin.until(&end)).sum::<Duration>();
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
        let mark = Mark::set(Device::Cpu);
        watch.add(mark, Mark::set(Device::Cpu));
        assert!(watch.total() < Duration::from_secs(60));
    }
}
