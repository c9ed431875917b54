//! MobileNetV2, width 1.0 (Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>), laid out as
//! torchvision's. Its dropout before the classifier has no parameters and is left out.

use qpipe::stages::model_source::ZooModel;

use super::builder::{Builder, Conv, Value};

/// Rows of the paper's table 2: expansion, channels, repeats, stride of the first.
const ROWS: [(u32, u32, u32, u32); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// Writes the network that `config` describes.
pub(super) fn build(builder: &mut Builder, config: &ZooModel) {
    let x = builder.input(config);
    let conv = |channels, kernel, stride| Conv { channels, kernel, stride, groups: 1 };
    let mut x = conv_bn_relu6(builder, "features.0", &x, conv(32, 3, 2));
    let mut index = 1;
    for (expansion, channels, repeats, stride) in ROWS {
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stride } else { 1 };
            let name = format!("features.{index}.conv");
            x = inverted_residual(builder, &name, &x, expansion, channels, stride);
            index += 1;
        }
    }
    let x = conv_bn_relu6(builder, &format!("features.{index}"), &x, conv(1280, 1, 1));
    let x = builder.global_pool(&x);
    builder.head("classifier.1", &x, config.classes, Some(0.01));
}

/// torchvision's `Conv2dNormActivation`: `.0` convolution, `.1` BatchNormalization, `.2` ReLU6.
fn conv_bn_relu6(builder: &mut Builder, name: &str, x: &Value, conv: Conv) -> Value {
    let y = builder.conv(&format!("{name}.0"), x, conv);
    let y = builder.batch_norm(&format!("{name}.1"), &y);
    builder.relu6(&format!("{name}.2"), &y)
}

fn inverted_residual(
    builder: &mut Builder,
    name: &str,
    x: &Value,
    expansion: u32,
    channels: u32,
    stride: u32,
) -> Value {
    let hidden = x.channels * expansion;
    let mut part = 0;
    let mut y = x.clone();
    if expansion != 1 {
        let conv = Conv { channels: hidden, kernel: 1, stride: 1, groups: 1 };
        y = conv_bn_relu6(builder, &format!("{name}.{part}"), &y, conv);
        part += 1;
    }
    let depthwise = Conv { channels: hidden, kernel: 3, stride, groups: hidden };
    y = conv_bn_relu6(builder, &format!("{name}.{part}"), &y, depthwise);
    let conv = Conv { channels, kernel: 1, stride: 1, groups: 1 };
    y = builder.conv(&format!("{name}.{}", part + 1), &y, conv);
    y = builder.batch_norm(&format!("{name}.{}", part + 2), &y);
    if stride == 1 && x.channels == channels {
        y = builder.add(&format!("{name}.add"), &y, x);
    }
    y
}
