//! Where a stage takes its model from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Input, InputPath, PortType, Problem, Ref, Source};
use super::data::Size;

/// A model: an output of another stage, an ONNX file, or an architecture of the zoo.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ModelSource {
    /// `"stage.model"`: the model that another stage made.
    Stage(Ref),
    /// `{ onnx = "model.onnx" }`: a file, such as PyTorch exports.
    File(OnnxFile),
    /// `{ arch = "resnet18", classes = 10 }`: built here.
    Zoo(ZooModel),
}

/// An ONNX file of the user's.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnnxFile {
    /// The file, relative to the pipeline file.
    pub onnx: InputPath,
    /// Height and width of the input image, of a file that leaves them free, as Ultralytics exports with `dynamic=True`: what follows from them is then
    /// computed once, and engines can be built. A file of another fixed size is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_size: Option<Size>,
}

/// A network of the zoo.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZooModel {
    /// Architecture.
    pub arch: Arch,
    /// Channels of the input image: 1 gray, 3 RGB.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 1024))]
    pub in_channels: u32,
    /// Number of classes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub classes: u32,
    /// Height and width of the input image, pixels.
    #[schemars(range(min = 8, max = 8192))]
    pub image_size: u32,
    /// `resnet` only: blocks in each stage of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), inner(range(min = 1, max = 100)))]
    pub blocks: Option<Vec<u32>>,
    /// `resnet` only: channels of each stage of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), inner(range(min = 1, max = 8192)))]
    pub channels: Option<Vec<u32>>,
    /// First layers: `imagenet` is a 7×7 convolution of stride 2 and a max pooling, `small` one
    /// 3×3 convolution of stride 1, `small-stride2` the same of stride 2. Default: the
    /// architecture's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<Stem>,
    /// Start weights: a safetensors file or a PyTorch state dict (`.pth`), torchvision's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<InputPath>,
}

/// Architectures of the zoo; parameters carry torchvision's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// ResNet-18 (basic blocks 2-2-2-2).
    Resnet18,
    /// ResNet-34 (basic blocks 3-4-6-3).
    Resnet34,
    /// ResNet-50 (bottleneck blocks 3-4-6-3).
    Resnet50,
    /// ResNet-101 (bottleneck blocks 3-4-23-3).
    Resnet101,
    /// ResNet-20 for CIFAR (basic blocks 3-3-3, 16-32-64 channels).
    Resnet20,
    /// A ResNet of basic blocks, `blocks` and `channels` free.
    Resnet,
    /// MobileNetV2, width 1.0.
    Mobilenetv2,
}

/// First layers of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// 7×7 convolution of stride 2, then a 3×3 max pooling of stride 2.
    Imagenet,
    /// 3×3 convolution of stride 1, as for CIFAR.
    Small,
    /// 3×3 convolution of stride 2.
    SmallStride2,
}

fn three() -> u32 {
    3
}

impl ModelSource {
    /// The input ports that this source needs: `model` for a stage or a file, `weights` for start
    /// weights of a zoo network, none without.
    pub fn inputs(&self) -> Vec<Input> {
        self.inputs_at("model", "weights")
    }

    /// The same for a model at another key, which is its port too, and with another port for its start weights.
    pub fn inputs_at(&self, key: &str, weights: &str) -> Vec<Input> {
        match self {
            Self::Stage(reference) => {
                vec![Input::reference(key, reference, &[PortType::Model])]
            }
            Self::File(file) => vec![Input {
                port: key.to_owned(),
                field: vec![key.to_owned(), "onnx".to_owned()],
                source: Source::Path(file.onnx.0.clone()),
                accepts: &[PortType::Model],
            }],
            Self::Zoo(zoo) => zoo
                .weights
                .iter()
                .map(|path| Input::path(weights, &format!("{key}.weights"), path))
                .collect(),
        }
    }

    /// Rules between keys, for the stage whose key `model` this is.
    pub fn check(&self) -> Vec<Problem> {
        self.check_at("model")
    }

    /// The same for a model at another key.
    pub fn check_at(&self, key: &str) -> Vec<Problem> {
        let Self::Zoo(zoo) = self else { return Vec::new() };
        let mut problems = zoo.check();
        problems.iter_mut().for_each(|problem| problem.field.insert(0, key.to_owned()));
        problems
    }
}

impl Arch {
    /// Whether it is a ResNet.
    pub fn is_resnet(self) -> bool {
        self != Self::Mobilenetv2
    }
}

impl ZooModel {
    /// Rules between keys; fields are relative to this table.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.arch.is_resnet() && self.stem.is_some() {
            problems.push(Problem::at("stem", "`stem` belongs to the ResNets only"));
        }
        if self.arch == Arch::Resnet {
            match (&self.blocks, &self.channels) {
                (Some(blocks), Some(channels)) if blocks.len() != channels.len() => {
                    problems.push(
                        Problem::at(
                            "channels",
                            format!(
                                "`blocks` has {} entries, `channels` {}: expected one of each for every stage of the network",
                                blocks.len(),
                                channels.len()
                            ),
                        )
                        .help("for example: blocks = [2, 2, 2], channels = [32, 64, 128]"),
                    );
                }
                (Some(_), Some(_)) => {}
                _ => problems.push(
                    Problem::at("arch", "arch \"resnet\" needs `blocks` and `channels`")
                        .help("for example: blocks = [2, 2, 2], channels = [32, 64, 128]"),
                ),
            }
        } else {
            for (key, given) in
                [("blocks", self.blocks.is_some()), ("channels", self.channels.is_some())]
            {
                if given {
                    problems.push(
                        Problem::at(key, format!("`{key}` belongs to arch \"resnet\" only"))
                            .help("write arch = \"resnet\" for a network of your own layout"),
                    );
                }
            }
        }
        problems
    }
}
