//! From a configuration to a model.

use std::path::Path;

use qpipe::stages::model_source::{Arch, ZooModel};

use super::builder::Builder;
use super::{mobilenet, resnet, weights};
use crate::graph::Model;
use crate::{Error, Result};

/// Operator set of the graphs; the first in which ONNX Runtime and TensorRT agree on all that is used.
pub const OPSET: i64 = 17;
/// Name of a zoo model's input: float `[batch, in_channels, image_size, image_size]`.
pub const INPUT: &str = "input";
/// Name of a zoo model's output: float `[batch, classes]`.
pub const OUTPUT: &str = "logits";

/// Builds the network that `config` describes: BatchNormalization unfolded, batch free, start
/// weights drawn by `seed` (the same bytes each time) and replaced by those of the file `weights`,
/// safetensors or a PyTorch state dict, where given.
///
/// # Errors
/// A combination of keys that makes no network; a weights file that does not read or whose tensors
/// do not fit, all of them listed.
pub fn build(config: &ZooModel, weights: Option<&Path>, seed: u64) -> Result<Model> {
    if let Some(problem) = config.check().into_iter().next() {
        let error = Error::user(problem.message);
        return Err(match problem.help {
            Some(help) => error.help(help),
            None => error,
        });
    }
    let mut builder = Builder::new(arch_name(config.arch), seed);
    match config.arch {
        Arch::Mobilenetv2 => mobilenet::build(&mut builder, config),
        _ => resnet::build(&mut builder, config),
    }
    let mut model = builder.finish(config);
    if let Some(path) = weights {
        weights::load(&mut model.graph, path)?;
    }
    Ok(model)
}

fn arch_name(arch: Arch) -> &'static str {
    match arch {
        Arch::Resnet18 => "resnet18",
        Arch::Resnet34 => "resnet34",
        Arch::Resnet50 => "resnet50",
        Arch::Resnet101 => "resnet101",
        Arch::Resnet20 => "resnet20",
        Arch::Resnet => "resnet",
        Arch::Mobilenetv2 => "mobilenetv2",
    }
}

#[cfg(test)]
mod tests {
    use qpipe::stages::model_source::Stem;

    use super::*;

    fn zoo(arch: Arch, in_channels: u32, classes: u32) -> ZooModel {
        ZooModel {
            arch,
            in_channels,
            classes,
            image_size: 32,
            blocks: None,
            channels: None,
            stem: None,
            weights: None,
        }
    }

    /// Trainable elements: all initializers but running statistics and constants of Clip.
    fn parameters(config: &ZooModel) -> usize {
        let model = build(config, None, 0).expect("builds");
        let trained = |name: &str| name.ends_with(".weight") || name.ends_with(".bias");
        let initializers = model.graph.initializers.iter();
        initializers.filter(|(name, _)| trained(name)).map(|(_, tensor)| tensor.len()).sum()
    }

    #[test]
    fn parameter_counts_are_torchvisions() {
        for (arch, count) in [
            (Arch::Resnet18, 11_689_512),
            (Arch::Resnet34, 21_797_672),
            (Arch::Resnet50, 25_557_032),
            (Arch::Resnet101, 44_549_160),
            (Arch::Mobilenetv2, 3_504_872),
        ] {
            assert_eq!(parameters(&zoo(arch, 3, 1000)), count, "{arch:?}");
        }
    }

    #[test]
    fn resnet20_has_the_size_that_its_paper_gives() {
        // He et al. 2015, table 6: 0.27 M; projections add 2,752 to the parameter-free shortcuts' 269,722.
        assert_eq!(parameters(&zoo(Arch::Resnet20, 3, 10)), 272_474);
    }

    #[test]
    fn names_are_torchvisions() {
        let has = |arch, names: &[&str]| {
            let model = build(&zoo(arch, 3, 10), None, 0).expect("builds");
            for name in names {
                assert!(model.graph.initializers.contains_key(*name), "{arch:?}: {name}");
            }
        };
        has(
            Arch::Resnet50,
            &[
                "conv1.weight",
                "bn1.running_mean",
                "layer1.0.downsample.0.weight",
                "layer4.2.bn3.running_var",
                "fc.weight",
                "fc.bias",
            ],
        );
        has(
            Arch::Mobilenetv2,
            &[
                "features.0.0.weight",
                "features.1.conv.0.0.weight",
                "features.1.conv.1.weight",
                "features.2.conv.3.bias",
                "features.17.conv.1.1.running_var",
                "features.18.0.weight",
                "classifier.1.bias",
            ],
        );
    }

    #[test]
    fn weights_follow_from_the_seed() {
        let config = zoo(Arch::Resnet20, 1, 10);
        let make = |seed| build(&config, None, seed).expect("builds");
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }

    #[test]
    fn convolutions_start_as_kaiming_fan_out() {
        let model = build(&zoo(Arch::Resnet18, 3, 10), None, 1).expect("builds");
        let weight = model.graph.initializers["layer2.0.conv2.weight"].to_f32().expect("float");
        let count = weight.len() as f64;
        let mean = weight.iter().map(|&w| f64::from(w)).sum::<f64>() / count;
        let variance = weight.iter().map(|&w| (f64::from(w) - mean).powi(2)).sum::<f64>() / count;
        let expected = 2.0 / (128.0 * 9.0);
        assert!(mean.abs() < 4.0 * (expected / count).sqrt(), "mean {mean}");
        assert!((variance / expected - 1.0).abs() < 0.02, "variance {variance} of {expected}");
    }

    #[test]
    fn a_resnet_of_ones_own_has_the_layers_asked_for() {
        let config = ZooModel {
            blocks: Some(vec![1, 1, 1]),
            channels: Some(vec![32, 64, 128]),
            stem: Some(Stem::SmallStride2),
            ..zoo(Arch::Resnet, 1, 10)
        };
        let model = build(&config, None, 0).expect("builds");
        let convolutions = model.graph.nodes.iter().filter(|node| node.op_type == "Conv");
        let names: Vec<&str> = convolutions.map(|node| node.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "conv1",
                "layer1.0.conv1",
                "layer1.0.conv2",
                "layer2.0.conv1",
                "layer2.0.conv2",
                "layer2.0.downsample.0",
                "layer3.0.conv1",
                "layer3.0.conv2",
                "layer3.0.downsample.0",
            ]
        );
        assert_eq!(model.graph.initializers["conv1.weight"].shape, [32, 1, 3, 3]);
        assert_eq!(model.graph.nodes[0].ints("strides").expect("ints"), Some(&[2, 2][..]));
    }

    #[test]
    fn keys_that_do_not_fit_are_refused() {
        let refused = |config: ZooModel, needle: &str| {
            let error = build(&config, None, 0).expect_err("refused");
            assert!(error.message.contains(needle), "{}", error.message);
        };
        refused(
            ZooModel { blocks: Some(vec![1]), ..zoo(Arch::Resnet18, 3, 10) },
            "`blocks` belongs to arch \"resnet\" only",
        );
        refused(zoo(Arch::Resnet, 3, 10), "needs `blocks` and `channels`");
        refused(
            ZooModel {
                blocks: Some(vec![1, 1]),
                channels: Some(vec![8]),
                ..zoo(Arch::Resnet, 3, 10)
            },
            "2 entries, `channels` 1",
        );
        refused(
            ZooModel { stem: Some(Stem::Small), ..zoo(Arch::Mobilenetv2, 3, 10) },
            "`stem` belongs to",
        );
    }
}
