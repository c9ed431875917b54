//! `[data.NAME]`: an image data set and how its images become tensors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Input, InputPath, Problem};
use super::inside::is_inside;

/// An image data set, labelled or not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataSpec {
    /// How the files are laid out.
    pub format: DataFormat,
    /// `image-folder`: the folder with one folder a class. `idx`: the images file (`.gz` allowed).
    /// `csv`: a file (UTF-8, commas) with the columns `path` and `label`; its paths are relative to it. `images`: a folder of images without labels.
    pub path: InputPath,
    /// `idx` only: the labels file. Default: the images file's name with `images-idx3` replaced by
    /// `labels-idx1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<InputPath>,
    /// Class names in the order of their indices. `image-folder`: only these folders are read;
    /// default: all folders, sorted by name. A data set without an
    /// image of some class lists all classes here, and has an empty folder for that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub classes: Option<Vec<String>>,
    /// Images are converted to this. Default: `gray` for `idx`, `rgb` for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<Color>,
    /// Leave out this many samples at the front, in the order of `limit`.
    #[serde(default)]
    pub skip: usize,
    /// Use at most this many samples, the first ones: of a table and of `idx` in their order, of an `image-folder` class by class, so that a
    /// small number takes images of the first classes alone, and a warning says of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<usize>,
    /// What happens to each image, in this order, before it is a tensor `[C, H, W]`. Values are in
    /// 0…1 before `normalize`.
    #[serde(default)]
    pub transform: Vec<Transform>,
}

/// Layouts of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    /// One folder a class with JPEG, PNG or BMP files, as torchvision's `ImageFolder`: transparency is dropped, an orientation in EXIF is
    /// not applied, images of 16 bits are scaled to 8. JPEGs whose colours are subsampled (4:2:0, 4:2:2) differ from Pillow's by up to 4 of 255
    /// levels, 0.2 to 0.4 in the mean: libjpeg-turbo fills in the colours between in another way. Other files are ignored with a warning.
    ImageFolder,
    /// MNIST's IDX format, plain or gzip.
    Idx,
    /// A table of image paths and labels. Labels are indices from 0 (`3`, or `3.0` as tools write it), or names of classes, which are
    /// sorted; a column of both, or with other numbers, is a mistake unless `classes` are listed.
    Csv,
    /// JPEG, PNG and BMP files in a folder and those below it, without labels: for `calibrate`, `equalize`, `sensitivity`, `search`, `reconstruct`, `verify` and
    /// [detectors](detection.md).
    Images,
}

/// Colour of the decoded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// One channel, luma.
    Gray,
    /// Three channels.
    Rgb,
}

/// One step from image to tensor, named as in torchvision.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// Resize the shorter side to this many pixels, the ratio kept; bilinear, antialiased. With
    /// `[height, width]`: to exactly that.
    Resize(Size),
    /// Resize to fit into this many pixels (square, or `[height, width]`), the ratio kept, and fill up on both sides with grey (114 of 255),
    /// as YOLO detectors are trained.
    Letterbox(Size),
    /// Cut this many pixels (square, or `[height, width]`) from the middle; padded with black where the image is smaller.
    CenterCrop(Size),
    /// Training: pad with black, then cut a random window.
    RandomCrop(RandomCrop),
    /// Training: cut a window of random area and ratio, and resize it; bilinear, antialiased. Elsewhere the largest window in the middle
    /// that has the ratio of `size` is taken.
    RandomResizedCrop(RandomResizedCrop),
    /// Training: mirror left and right with this probability.
    RandomHorizontalFlip(#[schemars(range(min = 0.0, max = 1.0))] f64),
    /// Training: mirror top and bottom with this probability.
    RandomVerticalFlip(#[schemars(range(min = 0.0, max = 1.0))] f64),
    /// Training: rotate by up to this many degrees either way, bilinear, black outside.
    RandomRotation(#[schemars(range(min = 0.0, max = 180.0))] f64),
    /// Subtract `mean` and divide by `std`, channel by channel.
    Normalize(Normalize),
}

/// Pixels: a number, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Size {
    /// One number.
    Side(#[schemars(range(min = 1, max = 16384))] u32),
    /// Height and width.
    HeightWidth(#[schemars(inner(range(min = 1, max = 16384)))] [u32; 2]),
}

impl Size {
    /// Height and width, pixels.
    pub fn height_width(self) -> [u32; 2] {
        match self {
            Self::Side(side) => [side, side],
            Self::HeightWidth(both) => both,
        }
    }
}

/// A random window.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomCrop {
    /// Pixels of the window.
    pub size: Size,
    /// Black pixels added at each side first.
    #[serde(default)]
    #[schemars(range(max = 1024))]
    pub padding: u32,
}

/// A random window that is resized, as torchvision's `RandomResizedCrop`: area and logarithm of the ratio are drawn evenly until a window fits into
/// the image, ten times at most; then it is the largest in the middle whose ratio is allowed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// Pixels of what comes out: square, or `[height, width]`.
    pub size: Size,
    /// Least and largest area of the window, as parts of the image's.
    #[serde(default = "default_scale")]
    #[schemars(inner(range(min = 0.0, max = 1.0)))]
    pub scale: [f64; 2],
    /// Least and largest ratio of the window, width by height.
    #[serde(default = "default_ratio")]
    #[schemars(inner(range(min = 0.01, max = 100.0)))]
    pub ratio: [f64; 2],
}

fn default_scale() -> [f64; 2] {
    [0.08, 1.0]
}

fn default_ratio() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

impl RandomResizedCrop {
    /// Bounds that are the wrong way round.
    fn turned_round(&self, at: &str) -> Vec<Problem> {
        let keys = [("scale", self.scale), ("ratio", self.ratio)];
        let turned = keys.into_iter().filter(|(_, [least, most])| least > most);
        let problem = |(key, [least, most]): (&str, [f64; 2])| {
            let message =
                format!("{key} goes from {least} to {most}: expected the smaller one first");
            Problem::at(&format!("{at}.{key}"), message)
                .help(format!("write {key} = [{most}, {least}]"))
        };
        turned.map(problem).collect()
    }
}

/// Channel-wise `(x - mean) / std`; one value serves all channels.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Normalize {
    /// Mean of each channel, in 0…1: one of pixels in 0…255 is divided by 255.
    #[schemars(length(min = 1))]
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, in 0…1.
    #[schemars(length(min = 1), inner(range(min = 1e-6)))]
    pub std: Vec<f32>,
}

impl Normalize {
    /// The first mean and the first deviation that belong to pixels of another range.
    fn out_of_range(&self, at: &str) -> Vec<Problem> {
        let keys = [("mean", &self.mean), ("std", &self.std)];
        let first = keys.into_iter().filter_map(|(key, values)| {
            let index = values.iter().position(|value| !(0.0..=1.0).contains(value))?;
            let message = format!("{key} {} is not in 0…1, as the pixels are", values[index]);
            Some(Problem::at(&format!("{at}.{key}.{index}"), message).help(
                "divide means and deviations of pixels in 0…255 by 255: mean 123.675 is 0.485, std 58.395 is 0.229",
            ))
        });
        first.collect()
    }
}

impl DataSpec {
    /// The labels file's path that holds where `labels` is not given, for `idx`.
    pub fn default_labels(path: &str) -> Option<String> {
        path.contains("images-idx3").then(|| path.replace("images-idx3", "labels-idx1"))
    }

    /// Files and folders that the data is read from: ports `path` and, for `idx`, `labels`.
    pub fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::path("path", "path", &self.path)];
        if self.format == DataFormat::Idx {
            if let Some(labels) = &self.labels {
                inputs.push(Input::path("labels", "labels", labels));
            } else if let Some(labels) = Self::default_labels(&self.path.0) {
                inputs.push(Input::path("labels", "path", &InputPath(labels)));
            }
        }
        inputs
    }

    /// What `skip` and `limit` leave of all samples.
    pub fn used<'s, T>(&self, all: &'s [T]) -> &'s [T] {
        let rest = &all[self.skip.min(all.len())..];
        &rest[..rest.len().min(self.limit.unwrap_or(usize::MAX))]
    }

    /// Rules between keys.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.format != DataFormat::Idx && self.labels.is_some() {
            problems.push(Problem::at("labels", "`labels` belongs to format \"idx\" only"));
        }
        if self.format == DataFormat::Images && self.classes.is_some() {
            problems.push(
                Problem::at("classes", "`classes` are folders, which format \"images\" has not")
                    .help("leave it out, or use format = \"image-folder\""),
            );
        }
        if self.format == DataFormat::Idx
            && self.labels.is_none()
            && Self::default_labels(&self.path.0).is_none()
        {
            problems.push(
                Problem::at(
                    "path",
                    "the labels file is not known: the name has no `images-idx3` in it",
                )
                .help("name it: labels = \"train-labels-idx1-ubyte.gz\""),
            );
        }
        let classes = self.classes.as_deref().unwrap_or_default();
        for (index, class) in classes.iter().enumerate() {
            if classes[..index].contains(class) {
                let message = format!("class \"{class}\" is there twice");
                let problem = Problem::at(&format!("classes.{index}"), message);
                problems.push(problem.help("each class has one place, which is its index"));
            }
            // What lies elsewhere is in no cache key.
            if self.format == DataFormat::ImageFolder && !is_inside(class) {
                let message = format!("class \"{class}\" is no folder in `path`");
                let problem = Problem::at(&format!("classes.{index}"), message);
                problems.push(problem.help(
                    "a class is the name of a folder in the data set's, such as \"cat\" or \"animals/cat\"",
                ));
            }
        }
        let channels = match self.color.unwrap_or(self.default_color()) {
            Color::Gray => 1,
            Color::Rgb => 3,
        };
        for (index, transform) in self.transform.iter().enumerate() {
            if let Transform::RandomResizedCrop(crop) = transform {
                let at = format!("transform.{index}.random_resized_crop");
                problems.extend(crop.turned_round(&at));
            }
            if let Transform::Normalize(normalize) = transform {
                for (key, length) in [("mean", normalize.mean.len()), ("std", normalize.std.len())]
                {
                    if length != 1 && length != channels {
                        let expected = if channels == 1 { "1" } else { "1 or 3" };
                        let color = if channels == 1 { "gray" } else { "rgb" };
                        problems.push(
                            Problem::at(
                                &format!("transform.{index}.normalize.{key}"),
                                format!("{length} values for {color} images: expected {expected}"),
                            )
                            .help("`color` says what images are converted to, \"gray\" or \"rgb\""),
                        );
                    }
                }
                problems.extend(normalize.out_of_range(&format!("transform.{index}.normalize")));
            }
        }
        problems
    }

    /// Whether values of pixels are computed from several others.
    pub fn resamples(&self) -> bool {
        let does = |step: &Transform| match step {
            Transform::Resize(_)
            | Transform::Letterbox(_)
            | Transform::RandomResizedCrop(_)
            | Transform::RandomRotation(_) => true,
            Transform::CenterCrop(_)
            | Transform::RandomCrop(_)
            | Transform::RandomHorizontalFlip(_)
            | Transform::RandomVerticalFlip(_)
            | Transform::Normalize(_) => false,
        };
        self.transform.iter().any(does)
    }

    /// Colour where the file names none.
    pub fn default_color(&self) -> Color {
        if self.format == DataFormat::Idx { Color::Gray } else { Color::Rgb }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(more: serde_json::Value) -> Vec<String> {
        let mut spec = serde_json::json!({ "format": "image-folder", "path": "@input" });
        let keys = spec.as_object_mut().unwrap();
        keys.extend(more.as_object().unwrap().clone());
        let spec: DataSpec = serde_json::from_value(spec).unwrap();
        spec.check().into_iter().map(|problem| problem.field.join(".")).collect()
    }

    #[test]
    fn means_and_deviations_are_those_of_pixels_in_0_to_1() {
        let normalize = |mean: &[f64], std: &[f64]| {
            let normalize = serde_json::json!({ "normalize": { "mean": mean, "std": std } });
            problems(serde_json::json!({ "transform": [normalize] }))
        };
        assert!(normalize(&[0.0, 0.5, 1.0], &[1.0, 0.229, 1.0 / 255.0]).is_empty());
        assert_eq!(
            normalize(&[0.485, 116.28, 103.53], &[58.395]),
            ["transform.0.normalize.mean.1", "transform.0.normalize.std.0"]
        );
        assert_eq!(normalize(&[-0.5], &[0.5]), ["transform.0.normalize.mean.0"]);
    }

    #[test]
    fn bounds_of_a_random_window_begin_with_the_smaller() {
        let crop = |more: serde_json::Value| {
            let mut crop = serde_json::json!({ "size": 8 });
            crop.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            problems(serde_json::json!({ "transform": [{ "random_resized_crop": crop }] }))
        };
        assert!(crop(serde_json::json!({})).is_empty());
        assert!(crop(serde_json::json!({ "scale": [0.5, 0.5], "ratio": [1.0, 2.0] })).is_empty());
        let both = crop(serde_json::json!({ "scale": [1.0, 0.08], "ratio": [1.4, 0.7] }));
        let at = "transform.0.random_resized_crop";
        assert_eq!(both, [format!("{at}.scale"), format!("{at}.ratio")]);
    }

    #[test]
    fn classes_are_folders_below_the_data_sets() {
        let classes = |classes: &[&str]| problems(serde_json::json!({ "classes": classes }));
        assert!(classes(&["cat", "animals/dog", "..x", "a b"]).is_empty());
        for outside in ["", ".", "..", "../other", "a/../../other", "/tmp", "a/"] {
            assert_eq!(classes(&["cat", outside]), ["classes.1"], "{outside}");
        }
        let named = serde_json::json!({ "format": "csv", "classes": ["n/a", ""] });
        assert!(problems(named).is_empty(), "names of a table's classes are any text");
    }
}
