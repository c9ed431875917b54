//! A model that tells images apart: one input `[N, C, H, W]`, one output `[N, classes]`.

use tch::Tensor;

use super::score::Score;
use crate::data::{Dataset, Loader, Order};
use crate::graph::{Dim, Model};
use crate::interp::{self, Mode, Options, Program};
use crate::{Error, Result, passes};

/// A compiled classifier.
pub struct Classifier {
    /// The model that it was compiled from, its batch free.
    pub model: Model,
    /// What runs it.
    pub program: Program,
    /// Count of its outputs.
    pub classes: usize,
    /// Whether a [score](Self::score) takes them for probabilities; they are taken for logits at first.
    pub probabilities: bool,
    /// Whether a score counts which classes are taken for which; it does not at first.
    pub confusion: bool,
}

impl Classifier {
    /// Compiles `model` for images of `dataset`. A fixed batch is freed.
    ///
    /// # Errors
    /// A model that is no image classifier or does not fit the data: channels, size of the images, count of classes.
    pub fn new(model: Model, dataset: &Dataset) -> Result<Self> {
        Self::with(model, dataset, &Options::default())
    }

    /// The same with other options of the interpreter.
    ///
    /// # Errors
    /// As [`Classifier::new`]; what the options name and the model does not have.
    pub fn with(mut model: Model, dataset: &Dataset, options: &Options) -> Result<Self> {
        let mut input = fits(&model, dataset)?;
        passes::set_batch(&mut model, None)?;
        let own = passes::fixed_batch(&model).unwrap_or(1);
        input[0] = own;
        interp::check_sizes(&model, &[&input])?;
        let mut program = Program::compile(&model, options)?;
        // What the model makes of one image says how many classes it has, whatever the file notes.
        let logits = {
            let image = Tensor::f_zeros(input, (tch::Kind::Float, tch::Device::Cpu))?;
            let _no_grad = tch::no_grad_guard();
            program.forward(&[image], Mode::Eval, &mut |_, _| Ok(()))?.remove(0)
        };
        let shape = logits.size();
        let &[rows, classes] = &shape[..] else {
            return Err(Error::user(format!(
                "the model's output for {own} images is {shape:?}: expected [{own}, classes]"
            ))
            .help("it must be a classifier that ends in logits"));
        };
        check_rows(rows, own)?;
        dataset.check_labels(classes as usize)?;
        Ok(Self {
            model,
            program,
            classes: classes as usize,
            probabilities: false,
            confusion: false,
        })
    }

    /// Checks that the model takes the images of another data set, too.
    ///
    /// # Errors
    /// Channels or size of the images; labels beyond the model's outputs.
    pub fn check(&self, dataset: &Dataset) -> Result<()> {
        fits(&self.model, dataset)?;
        dataset.check_labels(self.classes)
    }

    /// Logits `[N, classes]` of images, without gradients.
    pub fn logits(&mut self, images: &Tensor) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let images = [images.shallow_clone()];
        Ok(self.program.forward(&images, Mode::Eval, &mut |_, _| Ok(()))?.remove(0))
    }

    /// Scores all of a data set, at most `limit` batches of it; `each` is told of each batch's logits.
    pub fn score(
        &mut self,
        dataset: &Dataset,
        batch: usize,
        threads: usize,
        limit: Option<u64>,
        each: &mut dyn FnMut(u64, &Tensor) -> Result<()>,
    ) -> Result<Score> {
        passes::check_batch(&self.model, batch).map_err(|error| error.key("batch_size"))?;
        let score = Score::new(self.classes).of_probabilities(self.probabilities);
        let mut score = score.with_confusion(self.confusion);
        let loader = Loader::new(dataset, batch, Order::Sequential, false, threads);
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        let mut samples = 0;
        for loaded in loader.take(limit) {
            let loaded = loaded?;
            let logits = self.logits(&loaded.images)?;
            check_rows(logits.size()[0], loaded.images.size()[0])?;
            score.add(&logits, &loaded.labels)?;
            samples += logits.size()[0] as u64;
            each(samples, &logits)?;
        }
        Ok(score)
    }
}

/// A file that keeps the batch of its export may make one row of any number of images.
fn check_rows(rows: i64, images: i64) -> Result<()> {
    if rows == images {
        return Ok(());
    }
    Err(Error::user(format!("the model makes {rows} rows of logits of {images} images"))
        .help(passes::EXPORT_ANY_BATCH))
}

/// What to do with a model that is none.
pub(crate) const NO_CLASSIFIER: &str = "`evaluate` is for classifiers and, with task = \"detection\", for detectors: any other model is compared with `verify`, which needs no labels, and measured \
                             by a `command` stage of yours that runs the exported file";

/// Checks that the model's input takes the data's images; gives the shape of one image, `[1, C, H, W]`.
fn fits(model: &Model, dataset: &Dataset) -> Result<[i64; 4]> {
    let [input] = &model.graph.inputs[..] else {
        let names: Vec<&str> = model.graph.inputs.iter().map(|i| i.name.as_str()).collect();
        return Err(Error::user(format!(
            "the model has {} inputs ({}): expected one image",
            names.len(),
            names.join(", ")
        )));
    };
    if model.graph.outputs.len() != 1 {
        let count = model.graph.outputs.len();
        return Err(Error::user(format!("the model has {count} outputs: expected logits only"))
            .help(NO_CLASSIFIER));
    }
    interp::check_image_inputs(model)?;
    let shape = input.shape.as_deref().unwrap_or_default();
    let [_, channels, height, width] = shape else {
        return Err(Error::user(format!(
            "the model's input `{}` has {} dimensions: expected [batch, channels, height, width]",
            input.name,
            shape.len()
        )));
    };
    let fixed = |dim: &Dim| if let Dim::Fixed(extent) = dim { Some(*extent) } else { None };
    let given = dataset.channels() as i64;
    if let Some(channels) = fixed(channels).filter(|&channels| channels != given) {
        return Err(Error::user(format!(
            "the model takes images of {channels} channels, the data has {given}"
        ))
        .help("set `color` of the data set, or `in_channels` of the model"));
    }
    let size = match (fixed(height), fixed(width)) {
        (Some(h), Some(w)) => Some(dataset.size_or((h as usize, w as usize))),
        _ => dataset.size(),
    };
    let (h, w) = match size {
        Some((h, w)) => (h as i64, w as i64),
        None => {
            return Err(Error::user("images differ in size").help(
                "bring them to one size: transform = [{ resize = 256 }, { center_crop = 224 }]",
            ));
        }
    };
    for (extent, found, what) in [(height, h, "high"), (width, w, "wide")] {
        if let Some(extent) = fixed(extent).filter(|&extent| extent != found) {
            return Err(Error::user(format!(
                "the model takes images {extent} pixels {what}, the data's are {found}"
            ))
            .help("bring them to the model's size: transform = [{ resize = [H, W] }]"));
        }
    }
    Ok([1, given, h, w])
}
