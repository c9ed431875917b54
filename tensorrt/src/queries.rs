//! Queries on a GPU: copies, kernels and the clock, whatever enqueues the kernels.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstream, CUstreamCaptureMode};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaGraph, CudaSlice, CudaStream, DevicePtr, DriverError,
    PinnedHostSlice, result, sys,
};

use crate::files::Query;
use crate::options::Options;
use crate::{Error, Result};

/// When a series begins and ends, and what a query is.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Before the clock starts.
    pub warm_up: Duration,
    /// Queries at least.
    pub iterations: u32,
    /// Time at least.
    pub duration: Duration,
    /// Kernels are launched as a CUDA graph.
    pub cuda_graph: bool,
    /// Inputs and outputs are copied in each query.
    pub transfers: bool,
}

impl From<&Options> for Protocol {
    fn from(options: &Options) -> Self {
        Self {
            warm_up: Duration::from_secs_f64(options.warm_up_ms / 1e3),
            iterations: options.iterations,
            duration: Duration::from_secs_f64(options.seconds),
            cuda_graph: options.cuda_graph,
            transfers: options.transfers,
        }
    }
}

/// Something that enqueues kernels.
pub trait Kernels {
    /// Enqueues them all on a stream.
    ///
    /// # Errors
    /// What refuses.
    fn enqueue(&mut self, stream: CUstream) -> Result<()>;
}

/// A GPU and a stream of it.
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
}

/// Memory of the GPU and of the host, of the same size.
pub struct Buffer {
    device: CudaSlice<u8>,
    host: PinnedHostSlice<u8>,
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        let words = error.error_string().map(|words| words.to_string_lossy().into_owned());
        Self::Cuda(format!("{} ({:?})", words.unwrap_or_else(|_| "an error".to_owned()), error.0))
    }
}

impl Gpu {
    /// The first that is visible.
    ///
    /// # Errors
    /// No driver, no GPU.
    pub fn open() -> Result<Self> {
        // SAFETY: it opens NVIDIA's driver library, and no other.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::Cuda(
                "libcuda.so.1: cannot open: there is no NVIDIA driver".to_owned(),
            ));
        }
        let context = CudaContext::new(0)?;
        // SAFETY: all that is done to a buffer is done on one stream, or waited for.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream()?;
        Ok(Self { context, stream })
    }

    /// Name and compute capability, such as `9.0`.
    ///
    /// # Errors
    /// A driver that does not tell.
    pub fn words(&self) -> Result<(String, String)> {
        let (major, minor) = self.context.compute_capability()?;
        Ok((self.context.name()?, format!("{major}.{minor}")))
    }

    /// Memory of so many bytes, all zero.
    ///
    /// # Errors
    /// Too little memory.
    pub fn buffer(&self, bytes: usize) -> Result<Buffer> {
        // An empty tensor has an address too.
        let bytes = bytes.max(1);
        let device = self.stream.alloc_zeros(bytes)?;
        // SAFETY: it is filled below, before anything reads it.
        let mut host = unsafe { self.context.alloc_pinned_with_flags(bytes, 0) }?;
        host.as_mut_slice()?.fill(0);
        self.stream.synchronize()?;
        Ok(Buffer { device, host })
    }

    /// Runs a query and waits for it.
    ///
    /// # Errors
    /// What CUDA or `kernels` refuse.
    pub fn run(&self, kernels: &mut dyn Kernels, buffers: &mut Buffers) -> Result<()> {
        buffers.upload(&self.stream)?;
        kernels.enqueue(self.stream.cu_stream())?;
        buffers.download(&self.stream)?;
        Ok(self.stream.synchronize()?)
    }

    /// Times queries one behind the other. The next is enqueued while one runs, so that the GPU does not wait for the host. `warn` is told
    /// where the kernels cannot be recorded as a CUDA graph: they are launched one by one then.
    ///
    /// # Errors
    /// What CUDA or `kernels` refuse.
    pub fn time(
        &self,
        kernels: &mut dyn Kernels,
        buffers: &mut Buffers,
        protocol: &Protocol,
        warn: &dyn Fn(&str),
    ) -> Result<Vec<Query>> {
        // Also what a library sets up at the first run, which may not be recorded.
        self.run(kernels, buffers)?;
        let graph = if protocol.cuda_graph { self.record(kernels, warn)? } else { None };
        let mut free = [Events::new(&self.context)?, Events::new(&self.context)?].to_vec();
        let origin = self.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
        origin.record(&self.stream)?;
        let mut running: VecDeque<Events> = VecDeque::new();
        let mut queries = Vec::new();
        let start = Instant::now();
        let (mut timed, mut since) = (false, start);
        loop {
            if let Some(events) = free.pop() {
                self.enqueue(kernels, buffers, graph.as_ref(), protocol.transfers, &events)?;
                running.push_back(events);
                continue;
            }
            let Some(events) = running.pop_front() else { break };
            let query = events.wait(&origin)?;
            free.push(events);
            if !timed && start.elapsed() >= protocol.warm_up {
                // The one that runs by now began before: it is not counted.
                (timed, since) = (true, Instant::now());
                continue;
            }
            if timed {
                queries.push(query);
                let enough = queries.len() >= protocol.iterations as usize;
                if enough && since.elapsed() >= protocol.duration {
                    break;
                }
            }
        }
        self.stream.synchronize()?;
        let first = queries.first().map_or(0.0, |query| query.start);
        queries.iter_mut().for_each(|query| query.start -= first);
        Ok(queries)
    }

    fn enqueue(
        &self,
        kernels: &mut dyn Kernels,
        buffers: &mut Buffers,
        graph: Option<&CudaGraph>,
        transfers: bool,
        events: &Events,
    ) -> Result<()> {
        let [begin, copied, computed, end] = &*events.0;
        begin.record(&self.stream)?;
        if transfers {
            buffers.upload(&self.stream)?;
        }
        copied.record(&self.stream)?;
        match graph {
            Some(graph) => graph.launch()?,
            None => kernels.enqueue(self.stream.cu_stream())?,
        }
        computed.record(&self.stream)?;
        if transfers {
            buffers.download(&self.stream)?;
        }
        Ok(end.record(&self.stream)?)
    }

    /// The kernels as a graph; `None`, after a word to `warn`: they cannot be recorded.
    fn record(&self, kernels: &mut dyn Kernels, warn: &dyn Fn(&str)) -> Result<Option<CudaGraph>> {
        self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let enqueued = kernels.enqueue(self.stream.cu_stream());
        // Ended in any case: a stream that records does nothing else.
        let recorded = self.stream.end_capture(CUgraphInstantiate_flags(0));
        let graph = match (enqueued, recorded) {
            (Ok(()), Ok(Some(graph))) => graph,
            (Err(error), _) => {
                warn(&format!(
                    "kernels are launched one by one, since they cannot be recorded as a CUDA graph: {error}"
                ));
                return Ok(None);
            }
            (Ok(()), recorded) => {
                let reason = recorded.err().map_or("nothing was recorded".to_owned(), |error| {
                    Error::from(error).to_string()
                });
                warn(&format!(
                    "kernels are launched one by one, since they cannot be recorded as a CUDA graph: {reason}"
                ));
                return Ok(None);
            }
        };
        graph.upload()?;
        Ok(Some(graph))
    }
}

/// Events between the parts of a query.
#[derive(Clone)]
struct Events(Arc<[CudaEvent; 4]>);

impl Events {
    fn new(context: &Arc<CudaContext>) -> Result<Self> {
        let event = || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        Ok(Self(Arc::new([event()?, event()?, event()?, event()?])))
    }

    /// Waits for the query and tells its times.
    fn wait(&self, origin: &CudaEvent) -> Result<Query> {
        let [begin, copied, computed, end] = &*self.0;
        end.synchronize()?;
        let between = |from: &CudaEvent, to: &CudaEvent| from.elapsed_ms(to).map(f64::from);
        let (h2d_ms, compute_ms) = (between(begin, copied)?, between(copied, computed)?);
        let d2h_ms = between(computed, end)?;
        Ok(Query {
            start: between(origin, begin)?,
            h2d_ms,
            compute_ms,
            d2h_ms,
            latency_ms: h2d_ms + compute_ms + d2h_ms,
        })
    }
}

/// Memory of all inputs and outputs.
#[derive(Default)]
pub struct Buffers {
    /// Copied to the GPU before the kernels.
    pub inputs: Vec<Buffer>,
    /// Copied from the GPU behind them.
    pub outputs: Vec<Buffer>,
}

impl Buffers {
    fn upload(&mut self, stream: &CudaStream) -> Result<()> {
        for buffer in &mut self.inputs {
            let host = buffer.host.as_slice()?;
            let (place, _done) = buffer.device.device_ptr(stream);
            // SAFETY: both have the same length and live as long as `self`, which every caller keeps until the stream was waited for.
            unsafe { result::memcpy_htod_async(place, host, stream.cu_stream()) }?;
        }
        Ok(())
    }

    fn download(&mut self, stream: &CudaStream) -> Result<()> {
        for buffer in &mut self.outputs {
            let (place, _done) = buffer.device.device_ptr(stream);
            let host = buffer.host.as_mut_slice()?;
            // SAFETY: as in `upload`.
            unsafe { result::memcpy_dtoh_async(host, place, stream.cu_stream()) }?;
        }
        Ok(())
    }
}

impl Buffer {
    /// Address in the GPU's memory.
    pub fn address(&self, gpu: &Gpu) -> *mut std::ffi::c_void {
        self.device.device_ptr(&gpu.stream).0 as *mut std::ffi::c_void
    }

    /// What is copied to or from the GPU.
    ///
    /// # Errors
    /// A GPU in error.
    pub fn host(&self) -> Result<&[u8]> {
        Ok(self.host.as_slice()?)
    }

    /// The same, to be written.
    ///
    /// # Errors
    /// A GPU in error.
    pub fn host_mut(&mut self) -> Result<&mut [u8]> {
        Ok(self.host.as_mut_slice()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies the input to the output.
    struct Copy(sys::CUdeviceptr, sys::CUdeviceptr, usize);

    impl Kernels for Copy {
        fn enqueue(&mut self, stream: CUstream) -> Result<()> {
            // SAFETY: both buffers are that long and outlive the stream's work.
            Ok(unsafe { result::memcpy_dtod_async(self.1, self.0, self.2, stream) }?)
        }
    }

    /// A CUDA graph refuses to record it.
    struct Waits(Copy);

    impl Kernels for Waits {
        fn enqueue(&mut self, stream: CUstream) -> Result<()> {
            self.0.enqueue(stream)?;
            // SAFETY: a stream of this process.
            Ok(unsafe { result::stream::synchronize(stream) }?)
        }
    }

    fn protocol(cuda_graph: bool, transfers: bool) -> Protocol {
        Protocol {
            warm_up: Duration::from_millis(5),
            iterations: 50,
            duration: Duration::ZERO,
            cuda_graph,
            transfers,
        }
    }

    #[test]
    fn without_a_driver_it_says_so() {
        // SAFETY: as in `Gpu::open`.
        if !unsafe { sys::is_culib_present() } {
            assert_eq!(
                Gpu::open().err().unwrap().to_string(),
                "CUDA: libcuda.so.1: cannot open: there is no NVIDIA driver"
            );
        }
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn gpu_queries_are_copied_computed_and_timed() {
        let gpu = Gpu::open().unwrap();
        let bytes = 64 << 20;
        let mut buffers = Buffers {
            inputs: vec![gpu.buffer(bytes).unwrap()],
            outputs: vec![gpu.buffer(bytes).unwrap()],
        };
        let pattern: Vec<u8> = (0..bytes).map(|place| (place % 251) as u8).collect();
        buffers.inputs[0].host_mut().unwrap().copy_from_slice(&pattern);
        let [from, to] = [&buffers.inputs[0], &buffers.outputs[0]]
            .map(|buffer| buffer.address(&gpu) as sys::CUdeviceptr);
        let mut kernels = Copy(from, to, bytes);
        gpu.run(&mut kernels, &mut buffers).unwrap();
        assert!(buffers.outputs[0].host().unwrap() == pattern, "the output is the input");
        let warn = |words: &str| panic!("{words}");
        for cuda_graph in [false, true] {
            let queries =
                gpu.time(&mut kernels, &mut buffers, &protocol(cuda_graph, true), &warn).unwrap();
            assert!(queries.len() >= 50 && queries[0].start == 0.0);
            for pair in queries.windows(2) {
                assert!(pair[1].start - pair[0].start >= 0.99 * pair[0].latency_ms, "{pair:?}");
            }
            let mid = queries[queries.len() / 2];
            // 64 MiB: over PCIe at 5 to 100 GB/s, within the GPU at 0.3 to 10 TB/s.
            assert!(
                (0.6..15.0).contains(&mid.h2d_ms) && (0.6..15.0).contains(&mid.d2h_ms),
                "{mid:?}"
            );
            assert!((0.01..0.5).contains(&mid.compute_ms), "{mid:?}");
            let kernels_alone =
                gpu.time(&mut kernels, &mut buffers, &protocol(cuda_graph, false), &warn).unwrap();
            assert!(
                kernels_alone[25].h2d_ms < 0.1 && kernels_alone[25].latency_ms < 0.6,
                "{:?}",
                kernels_alone[25]
            );
        }
        let said = std::cell::RefCell::new(String::new());
        let queries =
            gpu.time(&mut Waits(kernels), &mut buffers, &protocol(true, true), &|words| {
                *said.borrow_mut() = words.to_owned()
            });
        assert!(queries.unwrap().len() >= 50);
        assert!(
            said.borrow().starts_with(
                "kernels are launched one by one, since they cannot be recorded as a CUDA graph"
            ),
            "{said:?}"
        );
    }
}
