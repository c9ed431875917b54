//! A data set: images, labelled or not, and what happens to each before it is a tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use qpipe::stages::contract::InputPath;
use qpipe::stages::data::{Color, DataFormat, DataSpec};

use super::drawn::Drawn;
use super::formats::{FORMATS, Source};
use super::pixels::Pixels;
use super::random::generator;
use super::transform::Transforms;
use crate::{Error, Result};

/// Decoded images are kept up to this many bytes.
const CACHE_BYTES: usize = 1 << 30;

/// A data set; a clone shares everything.
#[derive(Clone)]
pub struct Dataset {
    inner: Arc<Inner>,
    /// The key of the stage's table that names it.
    key: Option<&'static str>,
}

struct Inner {
    /// Where it lies, for messages.
    path: String,
    source: Box<dyn Source>,
    /// A remark on what `skip` and `limit` leave.
    left_out: Option<String>,
    /// Whether the user lists its classes.
    listed: bool,
    /// Height and width that all samples are held to, where images may differ.
    held_to: OnceLock<(usize, usize)>,
    transforms: Transforms,
    channels: usize,
    skip: usize,
    len: usize,
    /// Images after the transforms that are the same in every epoch; empty where the source has
    /// them in memory anyway.
    cache: Vec<OnceLock<Pixels>>,
    cached_bytes: AtomicUsize,
}

/// The description with its paths, for which a task has placeholders.
fn with_paths(spec: &DataSpec, paths: &BTreeMap<String, PathBuf>) -> DataSpec {
    let path = |port: &str| paths.get(port).map(|path| InputPath(path.display().to_string()));
    let mut spec = spec.clone();
    if let Some(path) = path("path") {
        spec.path = path;
    }
    spec.labels = if spec.format == DataFormat::Idx { path("labels") } else { spec.labels };
    spec
}

/// What `skip` and `limit` leave of the classes of a folder, if not some of each.
fn left_out(spec: &DataSpec, labels: &[usize]) -> Option<String> {
    if spec.format != DataFormat::ImageFolder {
        return None;
    }
    let count = |labels: &[usize]| labels.iter().collect::<BTreeSet<_>>().len();
    let (all, left) = (count(labels), count(spec.used(labels)));
    let keys = match (spec.skip, spec.limit) {
        (0, _) => "`limit` leaves",
        (_, None) => "`skip` leaves",
        _ => "`skip` and `limit` leave",
    };
    (left < all).then(|| {
        format!("{keys} images of {left} of {all} classes: folders are read class by class")
    })
}

impl Dataset {
    /// Opens the data set that `spec` describes; `paths` are those of its ports `path` and `labels`.
    ///
    /// # Errors
    /// Files that are missing, damaged or disagree; each names the file, and the index in it.
    pub fn open(spec: &DataSpec, paths: &BTreeMap<String, PathBuf>) -> Result<Self> {
        if let Some(problem) = with_paths(spec, paths).check().into_iter().next() {
            return Err(Error::user(problem.message));
        }
        let format = FORMATS.iter().find(|format| format.format == spec.format);
        let format = format.ok_or_else(|| Error::bug(format!("no format {:?}", spec.format)))?;
        let source = (format.open)(spec, paths)?;
        let channels = match spec.color.unwrap_or(spec.default_color()) {
            Color::Gray => 1,
            Color::Rgb => 3,
        };
        let total = source.labels().len();
        let len = total.saturating_sub(spec.skip).min(spec.limit.unwrap_or(usize::MAX));
        let path = paths.get("path").map(|path| path.display().to_string()).unwrap_or_default();
        if len == 0 {
            return Err(Error::user(format!(
                "{path}: no image is left: `skip` is {}, the data set has {total}",
                spec.skip
            ))
            .help("`skip` leaves out so many at the front: make it smaller"));
        }
        let left_out = left_out(spec, source.labels()).map(|left| format!("{path}: {left}"));
        let transforms = Transforms::new(&spec.transform, channels);
        let in_memory = source.size().is_some() && !transforms.has_fixed();
        let mut cache = Vec::new();
        cache.resize_with(if in_memory { 0 } else { len }, OnceLock::new);
        let cached_bytes = AtomicUsize::new(0);
        let inner = Inner {
            path,
            source,
            left_out,
            listed: spec.classes.is_some(),
            held_to: OnceLock::new(),
            transforms,
            channels,
            skip: spec.skip,
            len,
            cache,
            cached_bytes,
        };
        Ok(Self { inner: Arc::new(inner), key: None })
    }

    /// How many of its images the other one has too, as far as their paths, `skip` and `limit` tell: of the same files in one order.
    pub fn shared_with(&self, other: &Self) -> usize {
        let range = |set: &Self| set.inner.skip..set.inner.skip + set.inner.len;
        let (own, theirs) = (range(self), range(other));
        let real = |set: &Self| std::fs::canonicalize(&set.inner.path).ok();
        let same = self.inner.source.labels().len() == other.inner.source.labels().len()
            && real(self).is_some_and(|path| Some(path) == real(other));
        let shared = own.end.min(theirs.end).saturating_sub(own.start.max(theirs.start));
        if same { shared } else { 0 }
    }

    /// Says which key of the stage's table names it: errors of its images are of that key.
    #[must_use]
    pub fn of_key(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// The error with the key that names the data set.
    pub(super) fn placed(&self, error: Error) -> Error {
        match self.key {
            Some(key) => error.key(key),
            None => error,
        }
    }

    /// Forgets each image after its use, for who takes each of them once. To be said before there is a clone.
    #[must_use]
    pub fn read_once(mut self) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.cache = Vec::new();
        }
        self
    }

    /// Count of samples.
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// Whether there is no sample; [`Dataset::open`] refuses such a set.
    pub fn is_empty(&self) -> bool {
        self.inner.len == 0
    }

    /// Class names in the order of their indices.
    pub fn classes(&self) -> &[String] {
        self.inner.source.classes()
    }

    /// Channels of each image.
    pub fn channels(&self) -> usize {
        self.inner.channels
    }

    /// Height and width of all samples after the transforms, `None` where images may differ.
    pub fn size(&self) -> Option<(usize, usize)> {
        self.inner.transforms.output(self.inner.source.size())
    }

    /// The size of all samples. Where images may differ it is `only`, the one that a model or an engine takes: the loader then names
    /// the first image of another.
    pub fn size_or(&self, only: (usize, usize)) -> (usize, usize) {
        self.size().unwrap_or_else(|| *self.inner.held_to.get_or_init(|| only))
    }

    /// Refuses a sample of this height and width where all are held to another.
    pub(super) fn check_size(&self, index: usize, (height, width): (usize, usize)) -> Result<()> {
        let Some(&(h, w)) = self.inner.held_to.get() else { return Ok(()) };
        if (h, w) == (height, width) {
            return Ok(());
        }
        Err(Error::user(format!(
            "{} is {height}×{width} pixels, expected {h}×{w}, as the model takes",
            self.name(index)
        ))
        .help(format!("bring all images to that size: transform = [{{ resize = [{h}, {w}] }}]")))
    }

    /// Whether samples have labels.
    pub fn labelled(&self) -> bool {
        self.inner.source.labelled()
    }

    /// Label of each sample; 0 where there are none.
    pub fn labels(&self) -> &[usize] {
        &self.inner.source.labels()[self.inner.skip..self.inner.skip + self.inner.len]
    }

    /// For messages: file of sample `index`, and its index there where the file has several.
    pub fn name(&self, index: usize) -> String {
        self.inner.source.name(self.inner.skip + index)
    }

    /// What the user should know, such as files that were ignored.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.inner.source.notes();
        notes.extend(self.inner.left_out.clone());
        notes
    }

    /// A remark where a model has more outputs than classes were found: without a class's folder or name all behind it have the labels of
    /// others. And where another count of them is listed, which says which outputs they are.
    pub fn fewer_classes(&self, outputs: usize) -> Option<String> {
        let (count, path) = (self.classes().len(), &self.inner.path);
        if self.inner.listed && count != outputs {
            return Some(format!(
                "{path}: `classes` of the data set lists {count}, the model has {outputs} outputs: labels are numbered by that list, \"{}\" is 0; list all that the model learned, in its order",
                self.classes().first().map_or("", String::as_str)
            ));
        }
        (self.inner.source.classes_found() && count < outputs).then(|| {
            format!(
                "{path}: {count} classes found, the model has {outputs} outputs: list `classes` of the data set if labels may be shifted"
            )
        })
    }

    /// Checks that a model with `outputs` outputs can tell all labels apart.
    ///
    /// # Errors
    /// A data set without labels; the first sample whose label is too large.
    pub fn check_labels(&self, outputs: usize) -> Result<()> {
        if !self.labelled() {
            return Err(Error::user(format!("{}: the data has no labels", self.name(0))).help(
                "labels come from the formats \"image-folder\", \"csv\" and \"idx\"; without them detectors are evaluated with \
                 task = \"detection\"",
            ));
        }
        let Some(index) = self.labels().iter().position(|&label| label >= outputs) else {
            return Ok(());
        };
        let label = self.labels()[index];
        Err(Error::user(format!(
            "{}: its label {label} (class \"{}\") is out of range: the model has {outputs} outputs",
            self.name(index),
            self.classes()[label]
        ))
        .help(format!(
            "the data set has {} classes ({}): a model that learned all of them has as many outputs; or leave out the images of those that it did not learn",
            self.classes().len(),
            self.named(8)
        )))
    }

    /// Names of the first classes.
    fn named(&self, most: usize) -> String {
        let names = self.classes().iter().take(most).map(String::as_str);
        let rest = self.classes().len().saturating_sub(most);
        names.chain((rest > 0).then_some("…")).collect::<Vec<_>>().join(", ")
    }

    /// Sample `index` after its transforms; the random ones are drawn by (seed, epoch, index).
    pub(super) fn sample(&self, index: usize, augment: Option<(u64, u64)>) -> Result<Pixels> {
        let pixels = self.fixed(index)?;
        let mut random = augment.map(|(seed, epoch)| generator(seed, epoch, index as u64));
        let pixels = self.inner.transforms.apply_rest(pixels, random.as_mut());
        pixels.map_err(|error| error.at(self.name(index)))
    }

    /// Sample `index` for a batch that goes to a GPU: what is left to do there beside it. Windows are cut here, since they leave less to copy.
    pub(super) fn undone(
        &self,
        index: usize,
        augment: Option<(u64, u64)>,
    ) -> Result<(Pixels, Vec<Drawn>)> {
        let transforms = &self.inner.transforms;
        let Some((seed, epoch)) = augment.filter(|_| transforms.suits_device()) else {
            return Ok((self.sample(index, augment)?, Vec::new()));
        };
        let mut pixels = self.fixed(index)?;
        let size = (pixels.height, pixels.width);
        let drawn = transforms.draw(size, &mut generator(seed, epoch, index as u64));
        let mut drawn = drawn.map_err(|error| error.at(self.name(index)))?;
        let windows = drawn.iter().take_while(|drawn| drawn.cuts()).count();
        for window in drawn.drain(..windows) {
            pixels = window.apply(pixels);
        }
        Ok((pixels, drawn))
    }

    /// Whether the image of sample `index` can be read.
    pub(super) fn is_readable(&self, index: usize) -> bool {
        let Inner { source, cache, skip, .. } = &*self.inner;
        cache.get(index).and_then(OnceLock::get).is_some() || source.pixels(skip + index).is_ok()
    }

    fn fixed(&self, index: usize) -> Result<Pixels> {
        let inner = &*self.inner;
        if let Some(pixels) = inner.cache.get(index).and_then(OnceLock::get) {
            return Ok(pixels.clone());
        }
        let pixels = inner.source.pixels(inner.skip + index)?.into_owned();
        if pixels.height == 0 || pixels.width == 0 {
            return Err(Error::user(format!("{}: an image without pixels", self.name(index))));
        }
        let pixels = inner.transforms.apply_fixed(pixels);
        let pixels = pixels.map_err(|error| error.at(self.name(index)))?;
        if let Some(slot) = inner.cache.get(index) {
            let bytes = pixels.bytes.len();
            if inner.cached_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= CACHE_BYTES {
                // Another thread may have been first with the same pixels.
                let _ = slot.set(pixels.clone());
            }
        }
        Ok(pixels)
    }

    /// The normalized value of each byte, channel by channel.
    pub(super) fn byte_values(&self) -> &[[f32; 256]] {
        self.inner.transforms.byte_values()
    }

    /// Appends a sample's floats, `[C, H, W]`, normalized.
    pub(super) fn append_floats(&self, pixels: &Pixels, out: &mut Vec<f32>) {
        self.inner.transforms.append_floats(pixels, out);
    }
}
