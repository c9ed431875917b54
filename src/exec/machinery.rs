//! What only a run that runs something needs: the asynchronous runtime and the signals.

use tokio::runtime::Runtime;

use super::error::{At, Result};
use super::signals::Signals;

/// The runtime and the signals, made at first use: an up-to-date run needs neither.
#[derive(Debug, Default)]
pub struct Machinery(Option<(Runtime, Signals)>);

impl Machinery {
    /// Both.
    pub fn get(&mut self) -> Result<(&Runtime, &mut Signals)> {
        let made = match self.0.take() {
            Some(made) => made,
            None => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .at("start", "a runtime".as_ref())?;
                let signals = runtime.block_on(async { Signals::new() });
                (runtime, signals.at("take over", "signals".as_ref())?)
            }
        };
        let (runtime, signals) = self.0.insert(made);
        Ok((runtime, signals))
    }
}
