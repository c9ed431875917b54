//! ResNet (He et al. 2015, <https://arxiv.org/abs/1512.03385>), laid out as torchvision's: the
//! stride of a bottleneck block is in its 3×3 convolution, shortcuts that change shape are a 1×1
//! convolution and BatchNormalization.

use qpipe::stages::model_source::{Arch, Stem, ZooModel};

use super::builder::{Builder, Conv, Value};

/// What distinguishes one ResNet from another.
struct Layout {
    blocks: Vec<u32>,
    channels: Vec<u32>,
    bottleneck: bool,
    stem: Stem,
}

const IMAGENET_CHANNELS: [u32; 4] = [64, 128, 256, 512];

fn layout(config: &ZooModel) -> Layout {
    let (blocks, channels, bottleneck, stem): (&[u32], &[u32], bool, Stem) = match config.arch {
        Arch::Resnet18 => (&[2, 2, 2, 2], &IMAGENET_CHANNELS, false, Stem::Imagenet),
        Arch::Resnet34 => (&[3, 4, 6, 3], &IMAGENET_CHANNELS, false, Stem::Imagenet),
        Arch::Resnet50 => (&[3, 4, 6, 3], &IMAGENET_CHANNELS, true, Stem::Imagenet),
        Arch::Resnet101 => (&[3, 4, 23, 3], &IMAGENET_CHANNELS, true, Stem::Imagenet),
        Arch::Resnet20 => (&[3, 3, 3], &[16, 32, 64], false, Stem::Small),
        // `blocks` and `channels` are there: the caller has run `ZooModel::check`.
        Arch::Resnet | Arch::Mobilenetv2 => (
            config.blocks.as_deref().unwrap_or_default(),
            config.channels.as_deref().unwrap_or_default(),
            false,
            Stem::Imagenet,
        ),
    };
    Layout {
        blocks: blocks.to_vec(),
        channels: channels.to_vec(),
        bottleneck,
        stem: config.stem.unwrap_or(stem),
    }
}

/// Writes the network that `config` describes.
pub(super) fn build(builder: &mut Builder, config: &ZooModel) {
    let layout = layout(config);
    let mut x = stem(builder, config, &layout);
    for (stage, (&blocks, &channels)) in layout.blocks.iter().zip(&layout.channels).enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("layer{}.{block}", stage + 1);
            x = if layout.bottleneck {
                bottleneck(builder, &name, &x, channels, stride)
            } else {
                basic(builder, &name, &x, channels, stride)
            };
        }
    }
    let x = builder.global_pool(&x);
    builder.head("fc", &x, config.classes, None);
}

fn stem(builder: &mut Builder, config: &ZooModel, layout: &Layout) -> Value {
    let channels = layout.channels.first().copied().unwrap_or(64);
    let (kernel, stride) = match layout.stem {
        Stem::Imagenet => (7, 2),
        Stem::Small => (3, 1),
        Stem::SmallStride2 => (3, 2),
    };
    let x = builder.input(config);
    let x = builder.conv("conv1", &x, Conv { channels, kernel, stride, groups: 1 });
    let x = builder.batch_norm("bn1", &x);
    let x = builder.relu("relu", &x);
    if layout.stem == Stem::Imagenet { builder.max_pool("maxpool", &x) } else { x }
}

/// The identity, or a projection where the shape changes.
fn shortcut(builder: &mut Builder, name: &str, x: &Value, channels: u32, stride: u32) -> Value {
    if stride == 1 && x.channels == channels {
        return x.clone();
    }
    let conv = Conv { channels, kernel: 1, stride, groups: 1 };
    let y = builder.conv(&format!("{name}.downsample.0"), x, conv);
    builder.batch_norm(&format!("{name}.downsample.1"), &y)
}

fn basic(builder: &mut Builder, name: &str, x: &Value, channels: u32, stride: u32) -> Value {
    let conv = |stride| Conv { channels, kernel: 3, stride, groups: 1 };
    let y = builder.conv(&format!("{name}.conv1"), x, conv(stride));
    let y = builder.batch_norm(&format!("{name}.bn1"), &y);
    let y = builder.relu(&format!("{name}.relu1"), &y);
    let y = builder.conv(&format!("{name}.conv2"), &y, conv(1));
    let y = builder.batch_norm(&format!("{name}.bn2"), &y);
    let identity = shortcut(builder, name, x, channels, stride);
    let y = builder.add(&format!("{name}.add"), &y, &identity);
    builder.relu(&format!("{name}.relu2"), &y)
}

/// Output channels of a bottleneck block are this many times its inner ones.
const EXPANSION: u32 = 4;

fn bottleneck(builder: &mut Builder, name: &str, x: &Value, inner: u32, stride: u32) -> Value {
    let conv = |channels, kernel, stride| Conv { channels, kernel, stride, groups: 1 };
    let channels = inner * EXPANSION;
    let y = builder.conv(&format!("{name}.conv1"), x, conv(inner, 1, 1));
    let y = builder.batch_norm(&format!("{name}.bn1"), &y);
    let y = builder.relu(&format!("{name}.relu1"), &y);
    let y = builder.conv(&format!("{name}.conv2"), &y, conv(inner, 3, stride));
    let y = builder.batch_norm(&format!("{name}.bn2"), &y);
    let y = builder.relu(&format!("{name}.relu2"), &y);
    let y = builder.conv(&format!("{name}.conv3"), &y, conv(channels, 1, 1));
    let y = builder.batch_norm(&format!("{name}.bn3"), &y);
    let identity = shortcut(builder, name, x, channels, stride);
    let y = builder.add(&format!("{name}.add"), &y, &identity);
    builder.relu(&format!("{name}.relu3"), &y)
}
