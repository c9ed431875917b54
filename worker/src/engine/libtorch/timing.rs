//! Times a network on a GPU: copies and kernels apart, step by step or as a CUDA graph.

use std::time::Instant;

use qpipe::stages::contract::Metrics;
use serde::Serialize;
use serde_json::json;
use tch::{Device, Tensor};

use super::Network;
use crate::bench::{self, Protocol};
use crate::engine::Timing;
use crate::engine::tensorrt::{self, Times};
use crate::torch::{CudaGraph, synchronize};
use crate::{Result, torch};

/// Figures of a batch size, as those of TensorRT.
#[derive(Serialize)]
struct Timed {
    batch: usize,
    #[serde(flatten)]
    times: Times,
    throughput: f64,
}

/// Times the network at each batch size.
///
/// # Errors
/// What the network refuses; with `cuda_graph`, a network that waits for the GPU.
pub fn time(timing: &Timing) -> Result<Metrics> {
    let device = torch::device();
    let mut network = Network::open(timing.folder, timing.note)?;
    let gpu = match device {
        Device::Cuda(index) => tensorrt::visible()?.into_iter().nth(index),
        _ => None,
    };
    let state = || gpu.as_ref().and_then(tensorrt::state);
    let before = state();
    let mut batches = Vec::new();
    for (index, &batch) in timing.batches.iter().enumerate() {
        timing.begin(index);
        let times = one(&mut network, batch, &timing.protocol, timing.cuda_graph, device)?;
        let throughput = batch as f64 / times.compute_ms.median * 1e3;
        batches.push(Timed { batch, times, throughput });
    }
    Ok(Metrics::from([
        ("backend".to_owned(), json!(timing.note.backend)),
        ("runtime".to_owned(), json!(timing.note.runtime)),
        ("threads".to_owned(), json!(1)),
        ("cuda_graph".to_owned(), json!(timing.cuda_graph)),
        (
            "gpu".to_owned(),
            json!({ "name": gpu.as_ref().map(|gpu| &gpu.name), "driver": gpu.as_ref().map(|gpu| &gpu.driver),
                "compute_capability": gpu.as_ref().map(|gpu| &gpu.compute_capability),
                "before": before, "after": state() }),
        ),
        ("batches".to_owned(), json!(batches)),
    ]))
}

fn one(
    network: &mut Network,
    batch: usize,
    protocol: &Protocol,
    cuda_graph: bool,
    device: Device,
) -> Result<Times> {
    let [channels, height, width] = network.input;
    let shape = [batch as i64, channels, height, width];
    let noise = bench::noise(shape.iter().product::<i64>() as usize);
    let host = Tensor::f_from_slice(&noise)?.f_view(shape)?;
    // As PyTorch's loaders keep images: where the GPU can fetch them itself.
    let host = if device == Device::Cpu { host } else { torch::pinned(&host)? };
    let mut images = network.place(&host)?;
    let mut outputs = network.run(&images)?;
    let graph = if cuda_graph && device != Device::Cpu {
        let mut record = || {
            outputs = network.run(&images)?;
            Ok(())
        };
        Some(CudaGraph::record(device, &mut record)?)
    } else {
        None
    };
    let mut series: [Vec<f64>; 4] = Default::default();
    let mut run = || -> Result<()> {
        let start = Instant::now();
        images.f_copy_(&host)?;
        synchronize(device)?;
        let copied = start.elapsed();
        match &graph {
            Some(graph) => graph.replay()?,
            None => outputs = network.run(&images)?,
        }
        synchronize(device)?;
        let computed = start.elapsed();
        for output in &outputs {
            let _ = output.f_to_device(Device::Cpu)?;
        }
        let done = start.elapsed();
        let parts = [copied, computed - copied, done - computed, done];
        for (series, part) in series.iter_mut().zip(parts) {
            series.push(part.as_secs_f64() * 1e3);
        }
        Ok(())
    };
    let iterations = bench::time(protocol, batch, &mut run, &mut |_| ())?.iterations;
    let of = |part: usize| {
        let series: &Vec<f64> = &series[part];
        bench::Latency::of(&series[series.len() - iterations..])
    };
    Ok(Times { iterations, h2d_ms: of(0), compute_ms: of(1), d2h_ms: of(2), latency_ms: of(3) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Note;
    use crate::{onnx, passes};

    /// By the CPU's clock where there is no GPU: the parts add up.
    #[test]
    fn a_batch_is_copied_computed_and_copied_back() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/tiny_resnet_torchscript.onnx");
        let mut model = onnx::read(&path).unwrap();
        passes::inference_form(&mut model).unwrap();
        passes::fold_batch_norm(&mut model).unwrap();
        let note = Note::of(&model, super::super::NAME, "2.11".to_owned(), "model.onnx").unwrap();
        let mut network = Network::new(&model, &note).unwrap();
        let protocol = Protocol { warmup: 3, iterations: 5, seconds: 0.0 };
        let times = one(&mut network, 2, &protocol, true, Device::Cpu).unwrap();
        assert_eq!(times.iterations, 5);
        let parts = times.h2d_ms.mean + times.compute_ms.mean + times.d2h_ms.mean;
        assert!((parts - times.latency_ms.mean).abs() < 1e-6 * parts, "{times:?}");
    }
}
