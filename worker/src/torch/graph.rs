//! CUDA graphs, through `shim/graph.cpp`: work on a GPU that is recorded once and enqueued as a whole.

use std::ffi::{c_char, c_int, c_void};

use tch::Device;

use super::shim::done;
use crate::{Error, Result};

// SAFETY: declared as in `shim/graph.cpp`, which catches libtorch's exceptions.
unsafe extern "C" {
    fn qpipe_graph_record(
        index: i8,
        work: extern "C" fn(*mut c_void) -> c_int,
        context: *mut c_void,
        made: *mut *mut c_void,
    ) -> *mut c_char;
    fn qpipe_graph_replay(graph: *mut c_void) -> *mut c_char;
    fn qpipe_graph_free(graph: *mut c_void);
    fn qpipe_synchronize(index: i8) -> *mut c_char;
}

/// Work that was recorded. It reads and writes the memory that it read and wrote then.
pub struct CudaGraph(*mut c_void);

/// What is run to be recorded, and why it failed.
struct Work<'a> {
    run: &'a mut dyn FnMut() -> Result<()>,
    failed: Option<Error>,
}

extern "C" fn call(context: *mut c_void) -> c_int {
    // SAFETY: `record` passes its own, which outlives the call.
    let work = unsafe { &mut *context.cast::<Work>() };
    match (work.run)() {
        Ok(()) => 1,
        Err(error) => {
            work.failed.get_or_insert(error);
            0
        }
    }
}

fn index(device: Device) -> Result<i8> {
    match device {
        Device::Cuda(index) => i8::try_from(index).map_err(|_| Error::bug(format!("GPU {index}"))),
        other => Err(Error::bug(format!("{other:?} has no CUDA graphs"))),
    }
}

impl CudaGraph {
    /// Runs `work` twice, so that kernels are chosen, and records a third run. It must not wait for the GPU, nor hold on to memory of
    /// an earlier run.
    ///
    /// # Errors
    /// What `work` refuses, also because it waits, which the second run finds out; a libtorch that has no CUDA graphs.
    pub fn record(device: Device, work: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        let mut made = std::ptr::null_mut();
        let mut work = Work { run: work, failed: None };
        let context = (&raw mut work).cast::<c_void>();
        // SAFETY: `context` lives until the call ends, and is used by this thread only.
        let recorded =
            done(unsafe { qpipe_graph_record(index(device)?, call, context, &raw mut made) });
        match work.failed {
            Some(error) => Err(error),
            None => recorded.map(|()| Self(made)),
        }
    }

    /// Enqueues what was recorded.
    pub fn replay(&self) -> Result<()> {
        // SAFETY: made by `record`.
        done(unsafe { qpipe_graph_replay(self.0) })
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: made by `record`, freed once.
        unsafe { qpipe_graph_free(self.0) }
    }
}

/// Waits for the GPU; nothing to wait for on the CPU.
pub fn synchronize(device: Device) -> Result<()> {
    if device == Device::Cpu {
        return Ok(());
    }
    // SAFETY: a plain value.
    done(unsafe { qpipe_synchronize(index(device)?) })
}
