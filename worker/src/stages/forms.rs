//! The forms that a model takes on its way to a runtime, compared with what it was before.

use std::collections::HashMap;
use std::path::Path;

use tch::Tensor;

use super::Context;
use super::run_engine::run_engine;
use crate::analysis::{Budget, Comparison, Found, Seen};
use crate::engine::{self, Note, Tapped, Threads, library};
use crate::graph::{Dim, Model};
use crate::{Error, Result, passes, torch};

/// Runs images through a form.
type Run = dyn FnMut(&Tensor) -> Result<Found>;

/// What is compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The exported file on libtorch.
    pub libtorch: bool,
    /// The exported file on ONNX Runtime without fusion, where that is installed.
    pub onnxruntime: bool,
    /// The engine in this folder.
    pub engine: Option<&'a Path>,
    /// Also what its integer kernels give, where the runtime shows it.
    pub inner: bool,
}

type Values = HashMap<String, Tensor>;

/// One form.
struct Form {
    /// Beginning of its metrics' names.
    key: &'static str,
    comparison: Comparison,
    run: Box<Run>,
    /// Its integer kernels may saturate, which is told and no failure.
    saturates: bool,
    /// It is the engine.
    is_engine: bool,
}

/// Forms of an exported model.
pub struct Forms<'a> {
    exported: &'a Model,
    forms: Vec<Form>,
}

impl<'a> Forms<'a> {
    /// Loads the forms that are wanted of `exported`; its values `names` are compared. Files that are needed meanwhile are made beside
    /// the outputs of the stage.
    ///
    /// # Errors
    /// What a runtime refuses.
    pub fn new(
        context: &Context,
        exported: &'a Model,
        names: &[String],
        wanted: Wanted,
    ) -> Result<Self> {
        let folder = context.folder();
        let threads = context.task.threads;
        let mut forms = Vec::new();
        let mut add = |key, of: &str, run| {
            let comparison = Comparison::new(of);
            forms.push(Form { key, comparison, run, saturates: false, is_engine: false });
        };
        if wanted.libtorch {
            let mut seen = Seen::new(exported, names)?;
            let run = move |images: &Tensor| Ok(seen.run(images)?.1.into());
            add("export", "the exported file on libtorch", Box::new(run) as Box<_>);
        }
        if wanted.onnxruntime {
            match library::onnxruntime() {
                Ok(_) => add(
                    "onnxruntime",
                    "the exported file on ONNX Runtime without fusion",
                    tapped(Tapped::unfused(exported, names, folder, threads)?),
                ),
                Err(error) => context.events.warn(format!(
                    "the exported file was not compared on ONNX Runtime: {}",
                    error.message
                )),
            }
        }
        if let Some(path) = wanted.engine {
            let run = on_engine(path, wanted.inner.then_some(exported), folder, threads)?;
            let saturates = engine::may_saturate(path, &Note::read(path)?)?;
            let comparison = Comparison::new("the engine");
            forms.push(Form { key: "engine", comparison, run, saturates, is_engine: true });
        }
        Ok(Self { exported, forms })
    }

    /// Runs images through all forms; `expected` are the values of the form before.
    ///
    /// # Errors
    /// What a runtime refuses, values of other shapes.
    pub fn step(&mut self, images: &Tensor, expected: &Values) -> Result<()> {
        for form in &mut self.forms {
            let found = (form.run)(images)?;
            form.comparison.add(expected, &found)?;
        }
        Ok(())
    }

    /// Refuses the first value that is beyond its budget; of an engine whose integer kernels saturate on this processor it is a warning. What is said
    /// of an engine that is refused goes through `explain`.
    ///
    /// # Errors
    /// That value, by name.
    pub fn hold(
        &mut self,
        context: &Context,
        budget: Budget,
        explain: &dyn Fn(Error) -> Error,
    ) -> Result<()> {
        let exported = self.exported;
        let held = self.forms.iter_mut().map(|form| {
            let held = form.comparison.hold(exported, budget);
            match held {
                Err(error) if form.saturates => {
                    context.events.warn(format!(
                        "{}; this processor has no VNNI, and the sums of ONNX Runtime's integer kernels saturate on it: `weights = {{ reduce_range = true }}` in `insert-qdq`, or `saturate = false` in `build-engine`, keeps them whole",
                        error.message
                    ));
                    Ok(())
                }
                Err(error) if form.is_engine => Err(explain(error)),
                held => held,
            }
        });
        // All of them, so that all are in order afterwards.
        held.collect::<Vec<_>>().into_iter().collect()
    }

    /// The comparisons, with the beginning of their metrics' names.
    pub fn comparisons(&self) -> impl Iterator<Item = (&'static str, &Comparison)> {
        self.forms.iter().map(|form| (form.key, &form.comparison))
    }
}

fn tapped(mut tapped: Tapped) -> Box<Run> {
    Box::new(move |images| Ok(values_of(&mut tapped, images)?.into()))
}

fn values_of(tapped: &mut Tapped, images: &Tensor) -> Result<Values> {
    let floats = torch::tensor_data(images)?.to_f32()?;
    let values = tapped.run(&floats, &images.size())?;
    let tensors = values.into_iter().map(|value| {
        Ok((value.name, Tensor::f_from_slice(&value.elements)?.f_reshape(&value.shape)?))
    });
    tensors.collect()
}

/// The engine's outputs and, of an engine of the model `exported`, what its integer kernels give.
fn on_engine(
    path: &Path,
    exported: Option<&Model>,
    folder: &Path,
    threads: usize,
) -> Result<Box<Run>> {
    let (note, mut engine) = engine::load(path, &Threads::Free(threads))?;
    let mut inner = match exported.filter(|_| note.backend == "onnxruntime") {
        Some(exported) => Tapped::fused(path, &note, exported, folder, threads)?,
        None => None,
    };
    Ok(Box::new(move |images| {
        let values = match &mut inner {
            Some(inner) => values_of(inner, images)?,
            None => Values::new(),
        };
        let mut found = Found { inner: values.keys().cloned().collect(), values };
        let count = images.size()[0];
        let made = run_engine(engine.as_mut(), &note, images)?;
        for ((name, shape), made) in note.outputs().into_iter().zip(made) {
            let shape: Vec<i64> =
                std::iter::once(count).chain(shape.iter().map(|n| *n as i64)).collect();
            found.inner.remove(name);
            found.values.insert(name.to_owned(), Tensor::f_from_slice(&made)?.f_reshape(&shape)?);
        }
        Ok(found)
    }))
}

/// The batch that a model is fixed to.
pub fn fixed_batch(model: &Model) -> Option<usize> {
    match model.graph.inputs.first()?.shape.as_ref()?.first()? {
        Dim::Fixed(batch) => usize::try_from(*batch).ok(),
        _ => None,
    }
}

/// Images with which a model of free batch is compared.
const COMPARED: i64 = 4;

/// What is lost of a value, at most. Rounding of biases to integers alone gives 30 dB and more, 20 dB in deep networks that were hardly
/// trained; a collapse gives 0.
pub const BUDGET: Budget = Budget { sqnr_db: 10.0, agreement: 0.0, sudden_db: 6.0 };

/// Normally distributed images for `model`; `None` where it has several inputs, or one whose size is free.
///
/// # Errors
/// libtorch's.
pub fn random_images(model: &Model, seed: u64) -> Result<Option<Tensor>> {
    let [input] = &model.graph.inputs[..] else { return Ok(None) };
    let extents = input.shape.iter().flatten().enumerate().map(|(axis, dim)| match dim {
        Dim::Fixed(extent) => Some(*extent),
        _ => (axis == 0).then_some(COMPARED),
    });
    let Some(extents) = extents.collect::<Option<Vec<i64>>>().filter(|extents| !extents.is_empty())
    else {
        return Ok(None);
    };
    tch::manual_seed(i64::from_ne_bytes(seed.to_ne_bytes()));
    Ok(Some(Tensor::f_randn(&extents, (tch::Kind::Float, tch::Device::Cpu))?))
}

/// `model` with a free batch, for a comparison on few images.
///
/// # Errors
/// A model whose batch cannot be freed.
pub fn any_batch(model: &Model) -> Result<Model> {
    let mut model = model.clone();
    passes::set_batch(&mut model, None)?;
    Ok(model)
}
