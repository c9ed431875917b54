//! Batches, decoded ahead by threads.
//!
//! Thread `t` of `T` makes the batches `t`, `t + T`, … and hands them over in its own short queue;
//! the consumer takes from the queues in turn. Order and content so do not depend on `T`.
//!
//! Where the process computes on a GPU, images go there as bytes through pinned memory, without anybody waiting for the copy, and
//! become floats there: by the same table, so they are the same floats. Mirrored and turned they are there too ([`super::on_device`]), to the same bytes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tch::{Device, Kind, Tensor};

use super::drawn::Drawn;
use super::on_device;
use super::pixels::Pixels;
use super::unreadable::with_others;
use super::{Dataset, permutation};
use crate::{Error, Result, torch};

/// Batches that each thread is ahead.
const AHEAD: usize = 2;

/// Which samples, in which order.
#[derive(Clone, Debug)]
pub enum Order {
    /// All, as they stand.
    Sequential,
    /// All in random order, another one each epoch.
    Shuffled {
        /// Seed of order and random transforms.
        seed: u64,
        /// Epoch, from 0.
        epoch: u64,
    },
    /// These.
    Subset(Vec<usize>),
}

/// A batch.
#[derive(Debug)]
pub struct Batch {
    /// Float `[N, C, H, W]`, where the process computes.
    pub images: Tensor,
    /// Int64 `[N]`.
    pub labels: Tensor,
}

/// The same before it is a tensor: threads do not touch libtorch.
struct RawBatch {
    images: Images,
    /// `[N, C, H, W]`.
    shape: [i64; 4],
    /// Steps that are left to do to bytes, each with what it does to each image.
    steps: Vec<Vec<Drawn>>,
    labels: Vec<i64>,
}

/// Why there is no batch.
struct Failed {
    error: Error,
    /// The sample that cannot be read.
    unreadable: Option<usize>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, unreadable: None }
    }
}

enum Images {
    /// `[N, C, H, W]`, normalized.
    Floats(Vec<f32>),
    /// `[N, H, W, C]`, as they are.
    Bytes(Vec<u8>),
}

/// Iterates over the batches of a data set; the last may be smaller.
pub struct Loader {
    dataset: Dataset,
    queues: Vec<Receiver<Result<RawBatch, Failed>>>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
    batches: usize,
    samples: usize,
    /// The floats of each channel's bytes, where batches are bytes; on the GPU from the first batch on.
    table: Option<Table>,
}

impl Loader {
    /// Starts `threads` threads on the batches of `batch` samples. With `augment` the random
    /// transforms are applied, drawn by the seed and epoch of [`Order::Shuffled`] (0 for other orders).
    pub fn new(
        dataset: &Dataset,
        batch: usize,
        order: Order,
        augment: bool,
        threads: usize,
    ) -> Self {
        let bytes = torch::device() != Device::Cpu;
        Self::start(dataset, batch, order, augment, threads, bytes)
    }

    /// `bytes`: images become floats where the process computes.
    fn start(
        dataset: &Dataset,
        batch: usize,
        order: Order,
        augment: bool,
        threads: usize,
        bytes: bool,
    ) -> Self {
        let (indices, key) = match order {
            Order::Sequential => ((0..dataset.len()).collect(), (0, 0)),
            Order::Shuffled { seed, epoch } => {
                (permutation(dataset.len(), seed, epoch), (seed, epoch))
            }
            Order::Subset(indices) => (indices, (0, 0)),
        };
        let batch = batch.max(1);
        let (samples, batches) = (indices.len(), indices.len().div_ceil(batch));
        let count = threads.clamp(1, batches.max(1));
        let work = Arc::new(Work {
            dataset: dataset.clone(),
            indices,
            batch,
            augment: augment.then_some(key),
            bytes,
        });
        let mut loader = Self {
            dataset: dataset.clone(),
            queues: Vec::new(),
            threads: Vec::new(),
            next: 0,
            batches,
            samples,
            table: None,
        };
        for thread in 0..count {
            let (sender, receiver) = sync_channel(AHEAD);
            let work = Arc::clone(&work);
            loader.queues.push(receiver);
            loader.threads.push(std::thread::spawn(move || work.run(thread, count, &sender)));
        }
        loader
    }

    /// Count of all batches.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Count of all samples.
    pub fn samples(&self) -> usize {
        self.samples
    }
}

impl Loader {
    /// Ends the threads; how many there were.
    fn end(&mut self) -> usize {
        // Without receivers the threads' next `send` fails.
        self.queues.clear();
        let count = self.threads.len();
        for thread in self.threads.drain(..) {
            // A panic in it has been told by `next` already.
            let _ = thread.join();
        }
        count
    }

    fn tensors(&mut self, raw: RawBatch) -> Result<Batch> {
        let labels = Tensor::f_from_slice(&raw.labels)?;
        let images = match raw.images {
            Images::Floats(floats) => Tensor::f_from_slice(&floats)?.f_reshape(raw.shape)?,
            Images::Bytes(bytes) => {
                let table = match self.table.take() {
                    Some(table) => table,
                    None => Table::new(&self.dataset, torch::device())?,
                };
                let [n, c, h, w] = raw.shape;
                let bytes = torch::sent(&bytes, &[n, h, w, c], table.device)?;
                let bytes = on_device::apply(bytes, &raw.steps)?;
                self.table.insert(table).floats(&bytes)?
            }
        };
        Ok(Batch { images, labels })
    }
}

/// The floats that bytes stand for.
struct Table {
    device: Device,
    /// `[C · 256]`.
    values: Tensor,
    /// Where each channel's begin, `[C]`.
    offsets: Tensor,
}

impl Table {
    fn new(dataset: &Dataset, device: Device) -> Result<Self> {
        let channels = dataset.channels() as i64;
        Ok(Self {
            device,
            values: Tensor::f_from_slice(&dataset.byte_values().concat())?.f_to_device(device)?,
            offsets: Tensor::f_arange(channels, (Kind::Int64, device))?.f_mul_scalar(256)?,
        })
    }

    /// Bytes `[N, H, W, C]` to floats of shape `[N, C, H, W]`, the channels next to each other in memory.
    fn floats(&self, bytes: &Tensor) -> Result<Tensor> {
        let index = bytes.f_to_kind(Kind::Int64)?.f_add(&self.offsets)?;
        Ok(self.values.f_take(&index)?.f_permute([0, 3, 1, 2])?)
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.batches {
            return None;
        }
        let queue = &self.queues[self.next % self.queues.len()];
        self.next += 1;
        let raw = match queue.recv() {
            Ok(Ok(raw)) => raw,
            Ok(Err(Failed { error, unreadable })) => {
                self.next = self.batches;
                let threads = self.end();
                let error = match unreadable {
                    Some(index) => with_others(error, &self.dataset, index, threads),
                    None => error,
                };
                return Some(Err(self.dataset.placed(error)));
            }
            Err(_) => return Some(Err(Error::bug("a thread of the loader ended before its work"))),
        };
        Some(self.tensors(raw))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.end();
    }
}

struct Work {
    dataset: Dataset,
    indices: Vec<usize>,
    batch: usize,
    augment: Option<(u64, u64)>,
    /// Whether images stay bytes.
    bytes: bool,
}

impl Work {
    fn run(&self, first: usize, step: usize, queue: &SyncSender<Result<RawBatch, Failed>>) {
        for indices in self.indices.chunks(self.batch).skip(first).step_by(step) {
            let batch = self.load(indices);
            let failed = batch.is_err();
            if queue.send(batch).is_err() || failed {
                return;
            }
        }
    }

    /// The images of a batch, and what is left to do to them where the process computes.
    fn samples(&self, indices: &[usize]) -> Result<(Vec<Pixels>, Vec<Vec<Drawn>>), Failed> {
        let one = |&index: &usize| {
            let sample = if self.bytes {
                self.dataset.undone(index, self.augment)
            } else {
                self.dataset.sample(index, self.augment).map(|pixels| (pixels, Vec::new()))
            };
            sample.map_err(|error| Failed {
                error,
                unreadable: (!self.dataset.is_readable(index)).then_some(index),
            })
        };
        let samples = indices.iter().map(one).collect::<Result<Vec<_>, Failed>>()?;
        let size = |sample: &(Pixels, Vec<Drawn>)| (sample.0.height, sample.0.width);
        if samples.windows(2).any(|pair| size(&pair[0]) != size(&pair[1])) {
            // No tensor has them all: the steps may bring them to one size.
            let done = samples.into_iter().map(|(pixels, drawn)| {
                drawn.into_iter().fold(pixels, |pixels, drawn| drawn.apply(pixels))
            });
            return Ok((done.collect(), Vec::new()));
        }
        let (pixels, drawn): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
        let steps = (0..drawn.first().map_or(0, Vec::len))
            .map(|step| drawn.iter().map(|drawn| drawn[step]).collect());
        Ok((pixels, steps.collect()))
    }

    fn load(&self, indices: &[usize]) -> Result<RawBatch, Failed> {
        let (mut floats, mut bytes) = (Vec::new(), Vec::new());
        let mut size = None;
        let (samples, steps) = self.samples(indices)?;
        for (&index, pixels) in indices.iter().zip(samples) {
            let found = (pixels.height, pixels.width);
            self.dataset.check_size(index, found)?;
            let (expected, first) = *size.get_or_insert((found, index));
            if found != expected {
                return Err(Error::user(format!(
                    "images of different sizes in one batch: {} is {}×{} pixels, {} {}×{}",
                    self.dataset.name(first),
                    expected.0,
                    expected.1,
                    self.dataset.name(index),
                    found.0,
                    found.1
                ))
                .help("bring them to one size: transform = [{ resize = [224, 224] }], or { resize = 256 }, { center_crop = 224 }")
                .into());
            }
            let all = indices.len() * pixels.bytes.len();
            if self.bytes {
                bytes.reserve(all - bytes.len());
                bytes.extend_from_slice(&pixels.bytes);
            } else {
                floats.reserve(all - floats.len());
                self.dataset.append_floats(&pixels, &mut floats);
            }
        }
        let images = if self.bytes { Images::Bytes(bytes) } else { Images::Floats(floats) };
        let ((height, width), _) = size.ok_or_else(|| Error::bug("an empty batch"))?;
        let shape = [indices.len(), self.dataset.channels(), height, width].map(|n| n as i64);
        let labels = self.dataset.labels();
        let labels = indices.iter().map(|&index| labels[index] as i64).collect();
        Ok(RawBatch { images, shape, steps, labels })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn dataset(root: &Path, transform: serde_json::Value) -> Dataset {
        let spec = serde_json::json!({
            "format": "image-folder", "path": "@input", "color": "gray", "transform": transform,
        });
        let spec = serde_json::from_value(spec).expect("a spec");
        let paths = BTreeMap::from([("path".to_owned(), root.to_owned())]);
        Dataset::open(&spec, &paths).expect("opens")
    }

    #[test]
    fn images_that_two_data_sets_have_in_common_are_counted() {
        let (root, other) = (images(), images());
        let part = |root: &Path, skip: usize, limit: Option<usize>| {
            let spec = serde_json::json!({
                "format": "image-folder", "path": "@input", "color": "gray", "skip": skip, "limit": limit,
            });
            let spec = serde_json::from_value(spec).expect("a spec");
            let paths = BTreeMap::from([("path".to_owned(), root.to_owned())]);
            Dataset::open(&spec, &paths).expect("opens")
        };
        let train = part(root.path(), 0, Some(6));
        assert_eq!(train.shared_with(&part(root.path(), 6, None)), 0);
        assert_eq!(train.shared_with(&part(root.path(), 4, None)), 2);
        assert_eq!(part(root.path(), 4, None).shared_with(&train), 2);
        assert_eq!(train.shared_with(&train), 6);
        let link = root.path().with_extension("link");
        std::os::unix::fs::symlink(root.path(), &link).expect("links");
        assert_eq!(train.shared_with(&part(&link, 0, None)), 6);
        std::fs::remove_file(link).expect("removes");
        assert_eq!(train.shared_with(&part(other.path(), 0, None)), 0);
    }

    /// 9 images of two classes, image `i` with pixels `10 i + x`.
    fn images() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("folder");
        for index in 0..9u32 {
            let class = if index < 5 { "a" } else { "b" };
            std::fs::create_dir_all(root.path().join(class)).expect("makes");
            let image =
                image::GrayImage::from_fn(4, 4, |x, _| image::Luma([(10 * index + x) as u8]));
            image.save(root.path().join(format!("{class}/{index}.png"))).expect("writes");
        }
        root
    }

    fn all(loader: Loader) -> Vec<(Vec<f32>, Vec<i64>)> {
        let batch = |batch: Result<Batch>| {
            let batch = batch.expect("a batch");
            let images = Vec::<f32>::try_from(batch.images.flatten(0, -1)).expect("floats");
            (images, Vec::<i64>::try_from(batch.labels).expect("labels"))
        };
        loader.map(batch).collect()
    }

    #[test]
    fn batches_do_not_depend_on_the_number_of_threads() {
        let root = images();
        let transform = serde_json::json!([
            { "random_crop": { "size": 4, "padding": 2 } }, { "random_horizontal_flip": 0.5 },
            { "random_rotation": 20.0 },
        ]);
        let order = Order::Shuffled { seed: 5, epoch: 2 };
        let load = |threads, order: Order| {
            all(Loader::new(&dataset(root.path(), transform.clone()), 2, order, true, threads))
        };
        let one = load(1, order.clone());
        assert_eq!(one.len(), 5);
        for threads in [2, 3, 8] {
            assert_eq!(one, load(threads, order.clone()), "{threads} threads");
        }
        assert_ne!(one, load(1, Order::Shuffled { seed: 5, epoch: 3 }));
    }

    #[test]
    fn batches_have_the_samples_in_order() {
        let root = images();
        let data = dataset(root.path(), serde_json::json!([]));
        let batches = all(Loader::new(&data, 4, Order::Sequential, false, 2));
        let labels: Vec<Vec<i64>> = batches.iter().map(|batch| batch.1.clone()).collect();
        assert_eq!(labels, [vec![0, 0, 0, 0], vec![0, 1, 1, 1], vec![1]]);
        assert_eq!(batches[1].0[16..18], [50.0 / 255.0, 51.0 / 255.0]);
        let some = all(Loader::new(&data, 4, Order::Subset(vec![7, 0]), false, 2));
        assert_eq!(some.len(), 1);
        assert_eq!((some[0].0[0], some[0].0[16]), (70.0 / 255.0, 0.0));
        // The second time the images come from memory.
        assert_eq!(batches, all(Loader::new(&data, 4, Order::Sequential, false, 2)));
    }

    #[test]
    fn different_sizes_name_files_and_sizes() {
        let root = images();
        let image = image::GrayImage::new(6, 5);
        image.save(root.path().join("a/1.png")).expect("writes");
        let data = dataset(root.path(), serde_json::json!([]));
        let mut loader = Loader::new(&data, 4, Order::Sequential, false, 2);
        let error = loader.next().expect("a batch").expect_err("sizes differ");
        assert!(error.message.contains("a/0.png is 4×4 pixels"), "{}", error.message);
        assert!(error.message.contains("a/1.png 5×6"), "{}", error.message);
        assert!(loader.next().is_none());
    }

    #[test]
    fn bytes_become_the_same_floats_on_the_device() {
        let root = images();
        let transform = serde_json::json!([{ "normalize": { "mean": [0.3], "std": [0.7] } }]);
        let data = dataset(root.path(), transform);
        let floats = Loader::new(&data, 9, Order::Sequential, false, 1).next().unwrap().unwrap();
        let bytes: Vec<u8> =
            (0..9).flat_map(|index| data.sample(index, None).unwrap().bytes).collect();
        let size = floats.images.size();
        let bytes = Tensor::from_slice(&bytes).view([size[0], size[2], size[3], size[1]]);
        let found = Table::new(&data, Device::Cpu).unwrap().floats(&bytes).unwrap();
        assert_eq!(found, floats.images);
    }

    #[test]
    fn batches_are_the_same_wherever_their_images_are_turned() {
        let root = images();
        let order = || Order::Shuffled { seed: 3, epoch: 1 };
        let load = |data: &Dataset, bytes| all(Loader::start(data, 4, order(), true, 2, bytes));
        let turned =
            serde_json::json!([{ "random_rotation": 90.0 }, { "random_crop": { "size": 3 } }]);
        for transform in [
            serde_json::json!([{ "random_horizontal_flip": 0.5 }]),
            serde_json::json!([{ "random_crop": { "size": 4, "padding": 2 } }, { "random_rotation": 90.0 }]),
            serde_json::json!([{ "random_resized_crop": { "size": 3 } }, { "random_vertical_flip": 0.5 }]),
            turned.clone(),
        ] {
            let data = dataset(root.path(), transform.clone());
            let left = data.undone(0, Some((3, 1))).unwrap().1;
            assert!(!left.is_empty() && !left[0].cuts(), "{left:?}");
            assert_eq!(load(&data, true), load(&data, false), "{transform}");
        }
        // Of several sizes, which a crop behind brings to one.
        image::GrayImage::new(6, 5).save(root.path().join("a/1.png")).expect("writes");
        let data = dataset(root.path(), turned);
        assert_eq!(load(&data, true), load(&data, false));
    }

    #[test]
    fn an_image_that_does_not_decode_is_named() {
        let root = images();
        std::fs::write(root.path().join("b/7.png"), b"no image").expect("writes");
        let data = dataset(root.path(), serde_json::json!([]));
        let results: Vec<_> = Loader::new(&data, 2, Order::Sequential, false, 3).collect();
        let error = results.into_iter().find_map(Result::err).expect("an error");
        assert!(error.message.contains("b/7.png"), "{}", error.message);
    }

    #[test]
    fn a_label_beyond_the_outputs_is_named() {
        let root = images();
        let data = dataset(root.path(), serde_json::json!([]));
        assert!(data.check_labels(2).is_ok());
        let error = data.check_labels(1).expect_err("one output");
        assert!(
            error.message.contains("b/5.png") && error.message.contains("label 1"),
            "{}",
            error.message
        );
    }

    #[test]
    fn a_loader_left_early_ends_its_threads() {
        let root = images();
        let data = dataset(root.path(), serde_json::json!([]));
        let mut loader = Loader::new(&data, 1, Order::Sequential, false, 2);
        assert!(loader.next().is_some());
        drop(loader);
    }
}
