//! What only a run that runs something needs: the asynchronous runtime and the signals.

use tokio::runtime::Runtime;

use super::error::{At, Result};
use super::signals::{Ender, Signals};
use crate::cache::adopt;

/// The runtime, the signals, and who can ask the run to end. All stages are started from one thread:
/// they die with it.
pub fn start() -> Result<(Runtime, Signals, Ender)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.at("start", "a runtime".as_ref())?;
    let signals = runtime.block_on(async { Signals::new() });
    let (signals, ender) = signals.at("take over", "signals".as_ref())?;
    adopt().at("adopt", "processes that stages leave behind".as_ref())?;
    Ok((runtime, signals, ender))
}
