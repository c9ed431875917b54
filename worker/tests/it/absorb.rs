//! High biases that the next layer absorbs.

use std::collections::HashMap;

use qpipe_worker::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::ladder::{
    Activation6, Equalized, Moments, equalize, measured_moments, moments_of_norms,
};
use qpipe_worker::quant::prepare::prepare_and_tell;
use tch::{Device, Kind, Tensor};

use crate::quant::dataset;

const CHANNELS: usize = 6;

/// Conv, BatchNormalization, Relu and a second Conv with pads; biases of half of the channels are high.
fn model(pad: i64) -> Model {
    let mut graph = Graph::default();
    let mut state = 3_u32;
    let mut random = |count: usize| -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    };
    let square = |extent: i64| {
        vec![Dim::Named("N".to_owned()), Dim::Fixed(1), Dim::Fixed(extent), Dim::Fixed(extent)]
    };
    graph.inputs.push(ValueInfo::f32("x", square(28)));
    let channels = CHANNELS as i64;
    let mut put = |name: &str, shape: &[i64], values: &[f32]| {
        graph.initializers.insert(name.to_owned(), TensorData::f32(shape, values));
    };
    put("first.weight", &[channels, 1, 3, 3], &random(CHANNELS * 9));
    let high: Vec<f32> = (0..CHANNELS).map(|c| if c % 2 == 0 { 8.0 } else { 0.5 }).collect();
    put("scale", &[channels], &[0.5; CHANNELS]);
    put("shift", &[channels], &high);
    put("mean", &[channels], &[0.1; CHANNELS]);
    put("variance", &[channels], &[2.0; CHANNELS]);
    put("second.weight", &[4, channels, 3, 3], &random(4 * CHANNELS * 9));
    let pads = Attribute::Ints(vec![pad; 4]);
    graph.nodes = vec![
        Node::new("first", "Conv", &["x", "first.weight"], &["a"]),
        Node::new(
            "norm",
            "BatchNormalization",
            &["a", "scale", "shift", "mean", "variance"],
            &["b"],
        ),
        Node::new("relu", "Relu", &["b"], &["c"]),
        Node::new("second", "Conv", &["c", "second.weight"], &["y"]).with("pads", pads),
    ];
    graph.outputs.push(ValueInfo { name: "y".to_owned(), dtype: None, shape: None, opaque: None });
    Model::new(graph, 17)
}

/// What the model makes of images, and the values before and behind its Relu.
fn run(model: &Model, images: &Tensor) -> [Tensor; 3] {
    let _no_grad = tch::no_grad_guard();
    let watch = vec!["b".to_owned(), "c".to_owned()];
    let mut program = Program::compile(model, &Options { watch, ..Options::default() }).unwrap();
    let mut seen = [None, None];
    let mut made = program
        .forward(&[images.shallow_clone()], Mode::Eval, &mut |index, value| {
            seen[index] = Some(value.copy());
            Ok(())
        })
        .unwrap();
    let [before, behind] = [0, 1].map(|index| seen[index].take().unwrap());
    [made.remove(0), before, behind]
}

fn images(amplitude: f64) -> Tensor {
    tch::manual_seed(9);
    Tensor::randn([16, 1, 28, 28], (Kind::Float, Device::Cpu)) * amplitude
}

/// The prepared model, the same with equalized layers, and with absorbed biases.
fn absorbed(pad: i64) -> (Model, Model, Model, Equalized) {
    let mut model = model(pad);
    let folded = prepare_and_tell(&mut model).unwrap();
    let moments = moments_of_norms(&folded).unwrap();
    let (mut equalized, mut absorbed) = (model.clone(), model.clone());
    equalize(&mut equalized, Activation6::Keep, None).unwrap();
    let found = equalize(&mut absorbed, Activation6::Keep, Some(&moments)).unwrap();
    (model, equalized, absorbed, found)
}

#[test]
fn a_high_bias_is_absorbed_exactly_where_values_are_above_it() {
    let (model, equalized, absorbed, found) = absorbed(0);
    let [report] = &found.absorbed[..] else { panic!("{found:?}") };
    // β = 8 and γ = 0.5: 6.5 of each second channel, by the factor of equalization.
    assert_eq!((report.channels, report.left), (CHANNELS / 2, None));
    let quiet = images(0.2);
    let [expected, before, wide] = run(&equalized, &quiet);
    let [found, _, narrow] = run(&absorbed, &quiet);
    let [unchanged, ..] = run(&model, &quiet);
    let far = |a: &Tensor, b: &Tensor| ((a - b).abs().max() / a.abs().max()).double_value(&[]);
    assert!(far(&unchanged, &expected) < 1e-5);
    let each = |value: &Tensor| -> Vec<f64> {
        Vec::try_from(value.transpose(0, 1).flatten(1, -1).amax([1], false).to_kind(Kind::Double))
            .unwrap()
    };
    let least = |value: &Tensor| each(&-value).into_iter().map(|v| -v).collect::<Vec<f64>>();
    let bias = |model: &Model| model.graph.initializers["first.bias"].to_f32().unwrap();
    let taken: Vec<f64> =
        bias(&equalized).iter().zip(bias(&absorbed)).map(|(a, b)| f64::from(a - b)).collect();
    // All values are above what is taken away, so that nothing is lost.
    assert!(
        least(&before).iter().zip(&taken).all(|(least, taken)| *taken == 0.0 || least > taken),
        "{taken:?}"
    );
    assert!(far(&expected, &found) < 1e-5, "{}", far(&expected, &found));
    for (channel, (wide, narrow)) in each(&wide).into_iter().zip(each(&narrow)).enumerate() {
        let high = channel % 2 == 0;
        assert!((wide - taken[channel] - narrow).abs() < 1e-4);
        assert_eq!(taken[channel] > 0.0, high, "{taken:?}");
        assert!(!high || narrow < 0.5 * wide, "channel {channel}: {wide} became {narrow}");
    }
    // Below it, values are cut off.
    let loud = images(40.0);
    assert!(far(&run(&equalized, &loud)[0], &run(&absorbed, &loud)[0]) > 1e-3);
}

#[test]
fn layers_that_are_padded_and_values_that_are_not_known_stay() {
    let (_, equalized, absorbed, found) = absorbed(1);
    let why = found.absorbed[0].left.unwrap();
    assert!(why.contains("padded with zeros"), "{why}");
    assert_eq!(equalized, absorbed);

    let mut model = model(0);
    prepare_and_tell(&mut model).unwrap();
    let found = equalize(&mut model, Activation6::Keep, Some(&HashMap::new())).unwrap();
    assert!(found.absorbed[0].left.unwrap().contains("give `data`"));
}

#[test]
fn moments_are_measured_channel_by_channel() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let mut model = model(0);
    prepare_and_tell(&mut model).unwrap();
    let found = measured_moments(&model, &dataset, (96, 40, 2, 1), &|_, _| ()).unwrap();
    // As one batch: the same sums.
    let whole = measured_moments(&model, &dataset, (96, 96, 2, 1), &|_, _| ()).unwrap();
    assert_eq!(found["b"].len(), CHANNELS);
    for (a, b) in found["b"].iter().zip(&whole["b"]) {
        let Moments { mean, deviation } = *a;
        assert!((mean - b.mean).abs() < 1e-6 && (deviation - b.deviation).abs() < 1e-6);
        assert!(deviation > 0.0);
    }
    let equal = equalize(&mut model, Activation6::Keep, Some(&found)).unwrap();
    assert!(equal.absorbed[0].left.is_none());
}
