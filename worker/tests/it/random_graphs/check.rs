//! What must hold of every graph.

use qpipe::stages::calibrate::{Histogram, Method};
use qpipe_worker::graph::Model;
use qpipe_worker::onnx;
use qpipe_worker::quant::calibrate::{self, calibrate};
use qpipe_worker::quant::ladder::{Activation6, Smoothing, equalize, smooth};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::quant::ranges::Ranges;

use super::forms::forms;
use super::variant::{Variant, check as check_variant, variants};
use super::world::{World, outputs, worst};
use super::{apart, learning, measuring, rungs};

/// What does not hold, and how it shows.
#[derive(Clone, Debug)]
pub struct Failure {
    pub what: String,
    pub detail: String,
}

pub type Held<T> = Result<T, Failure>;

pub fn fail<T>(what: &str, detail: impl std::fmt::Display) -> Held<T> {
    Err(Failure { what: what.to_owned(), detail: detail.to_string() })
}

/// Gives an error a name.
pub trait Named<T> {
    fn named(self, what: &str) -> Held<T>;
}

impl<T, E: std::fmt::Display> Named<T> for Result<T, E> {
    fn named(self, what: &str) -> Held<T> {
        self.or_else(|error| fail(what, error))
    }
}

/// Least SQNR of float forms of one model, dB.
pub const FLOAT: f64 = 80.0;

/// Holds a graph to all of it; `None`: it has no layer to quantize, and is refused as such. Else the SQNR of the outputs of each variant.
pub fn check(model: &Model, world: &World, seed: u64) -> Held<Option<Vec<(Variant, f64)>>> {
    onnx::check(model).named("the standard's rules")?;
    let names = outputs(model);
    let expected = world.onnxruntime(model, &names).named("generator: ONNX Runtime refuses it")?;
    let same = |model: &Model, what: &str| -> Held<()> {
        let (name, decibels) = worst(&expected, &world.libtorch(model, &names).named(what)?);
        if decibels < FLOAT { fail(what, format!("{name}: {decibels:.1} dB")) } else { Ok(()) }
    };
    if worst(&expected, &expected).1 < FLOAT {
        return Ok(None);
    }
    same(model, "float: libtorch is not ONNX Runtime")?;
    round_trip(model)?;
    let mut prepared = model.clone();
    prepare(&mut prepared).named("prepare")?;
    onnx::check(&prepared).named("the standard's rules of the prepared model")?;
    same(&prepared, "float: the prepared model is another")?;
    let ranges = match ranges(&prepared, world) {
        Err(error) if error.contains("no layer that can be quantized") => return Ok(None),
        ranges => ranges.named("calibrate")?,
    };
    hold(&ranges)?;
    let mut found = Vec::new();
    let variants = variants(&prepared, seed);
    let count = variants.len() as u64;
    for (index, variant) in variants.into_iter().enumerate() {
        // Twice in three times the one whose ranges nothing is cut off by.
        let method = if seed.is_multiple_of(3) { Method::Mse } else { Method::Max };
        let decibels = check_variant(
            &prepared,
            &ranges,
            method,
            world,
            &variant,
            index as u64 == seed / 3 % count,
        )?;
        found.push((variant, decibels));
    }
    let mut equalized = prepared.clone();
    equalize(&mut equalized, Activation6::Keep, None).named("equalize")?;
    same(&equalized, "equalize: the model is another")?;
    let options = Smoothing { alpha: 0.5, samples: 16, batch_size: 8, seed: 1, threads: 1 };
    let mut smoothed = prepared.clone();
    smooth(&mut smoothed, &world.dataset, &options, &|_, _| ()).named("smooth")?;
    same(&smoothed, "smooth: the model is another")?;
    forms(model, world, &expected, seed)?;
    for (index, part) in PARTS.iter().enumerate() {
        if everything() || seed as usize % PARTS.len() == index {
            part(&prepared, &ranges, world, seed)?;
        }
    }
    Ok(Some(found))
}

type Part = fn(&Model, &Ranges, &World, u64) -> Held<()>;

/// What is too slow for each seed of the default run, which does one of them.
const PARTS: &[Part] =
    &[learning::learned, learning::differences, rungs::climbed, measuring::measured, apart::apart];

/// More seeds by hand: all of it.
pub fn everything() -> bool {
    std::env::var_os("QPIPE_RANDOM_GRAPHS").is_some()
}

/// Every method cuts off at most what is largest.
fn hold(ranges: &Ranges) -> Held<()> {
    for range in &ranges.tensors {
        let most = range.amax.get(&Method::Max).copied().unwrap_or(0.0);
        let holds =
            |amax: f32| amax.is_finite() && (most == 0.0 || amax > 0.0) && amax <= most * 1.001;
        if let Some((method, amax)) = range.amax.iter().find(|(_, amax)| !holds(**amax)) {
            return fail(
                "a range that is none",
                format!("{}: {method:?} {amax}, max {most}", range.tensor),
            );
        }
    }
    Ok(())
}

fn ranges(model: &Model, world: &World) -> Result<Ranges, String> {
    let options = calibrate::Options {
        samples: 32,
        batch_size: 16,
        methods: Method::ALL.to_vec(),
        best_samples: 16,
        bins: 256,
        percentile: 99.99,
        histogram: Histogram::Exact,
        seed: 5,
        threads: 1,
        on_device: false,
    };
    let found = calibrate(model, &world.dataset, &options, &|_, _| ());
    found.map(|found| found.ranges).map_err(|error| error.to_string())
}

/// Written and read again it is the same.
pub fn round_trip(model: &Model) -> Held<()> {
    let bytes = onnx::to_bytes(model).named("write")?;
    let read = onnx::parse(bytes.clone()).named("read")?;
    let again = onnx::to_bytes(&read).named("write")?;
    if again != bytes {
        return fail("read and written again it is another file", "");
    }
    Ok(())
}
