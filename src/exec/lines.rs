//! Bytes of a pipe as lines.

/// Cuts what a process prints into lines; a carriage return ends one too, as progress bars use it.
#[derive(Debug, Default)]
pub struct Lines {
    part: Vec<u8>,
}

impl Lines {
    /// A line without an end is cut here, so that no program can fill the memory.
    const LIMIT: usize = 1 << 20;

    /// Takes bytes and gives the lines that they end.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let ended = matches!(piece.last(), Some(b'\n' | b'\r'));
            self.part.extend_from_slice(&piece[..piece.len() - usize::from(ended)]);
            if ended || self.part.len() > Self::LIMIT {
                lines.extend(self.take());
            }
        }
        lines
    }

    /// What is left without an end.
    pub fn take(&mut self) -> Option<String> {
        let part = std::mem::take(&mut self.part);
        (!part.is_empty()).then(|| String::from_utf8_lossy(&part).into_owned())
    }
}

/// The last lines of a stage.
#[derive(Debug, Default)]
pub struct Tail {
    lines: std::collections::VecDeque<String>,
}

impl Tail {
    /// How many lines are kept.
    const COUNT: usize = 20;

    /// Adds a line.
    pub fn push(&mut self, line: &str) {
        if self.lines.len() == Self::COUNT {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    /// The last lines, oldest first.
    pub fn lines(self) -> Vec<String> {
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_over_reads() {
        let mut lines = Lines::default();
        assert!(lines.push(b"on").is_empty());
        assert_eq!(lines.push(b"e\n10 %\r20 %\r\ntw"), ["one", "10 %", "20 %"]);
        assert_eq!(lines.take().as_deref(), Some("tw"));
        assert_eq!(lines.take(), None);
        let mut long = Lines::default();
        let count: usize = (0..3).map(|_| long.push(&vec![b'x'; 1 << 20]).len()).sum();
        assert_eq!(count, 1);
    }
}
