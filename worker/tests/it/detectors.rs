//! Detectors of the kinds of YOLOv5 and YOLOv8, as both of PyTorch's exporters write them from opset 11 to 21: a backbone
//! with Split, Concat and poolings, Resize, and a tail that decodes boxes, with and without NonMaxSuppression.

use std::process::Stdio;

use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::{onnx, passes};

use crate::{parity, python, round_trip};

#[test]
fn detectors_of_both_exporters_and_all_opsets_give_onnxruntimes_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let mut exporter = python::torch("detectors.py");
    exporter.arg(folder.path()).arg("outputs");
    let cases = parity::each_case(&mut exporter, folder.path(), |folder, name| {
        parity::compare(folder)?;
        parity::write_back(folder, name)?;
        if name.starts_with("suppressed") { Ok(()) } else { parity::train(folder) }
    });
    assert_eq!(cases.len(), 8);
    let part = |name| folder.path().join(name);
    assert_eq!(round_trip::same(&part("before"), &part("after")), cases.len());
}

#[test]
fn a_detectors_gradients_and_steps_are_pytorchs() {
    let folder = tempfile::tempdir().unwrap();
    let mut exporter = python::torch("detectors.py");
    let made = exporter.arg(folder.path()).arg("gradients").stdout(Stdio::null()).status();
    assert!(made.unwrap().success());
    for network in ["anchor_free", "anchored"] {
        let case = parity::arrays(&folder.path().join(format!("{network}.npz")));
        let mut model = onnx::read(&folder.path().join(format!("{network}.onnx"))).unwrap();
        passes::inference_form(&mut model).unwrap();
        // PyTorch's own layout: another one adds up in another order.
        let options = Options { channels_last: false, ..Options::default() };
        let mut program = Program::compile(&model, &options).unwrap();
        program.train(true);
        let expected = Vec::<f64>::try_from(&case["losses"]).unwrap();
        for (step, expected) in expected.iter().enumerate() {
            let loss = parity::squared(&mut program, &case["images"], &case["target"], Mode::Train);
            let found = loss.double_value(&[]);
            let error = (found - expected).abs() / expected;
            assert!(error < 1e-3, "{network}, step {step}: loss {found}, PyTorch's {expected}");
            loss.backward();
            if step == 0 {
                let wrong = parity::wrong_gradients(&program, &case);
                assert!(wrong.is_empty(), "{network}:\n{}", wrong.join("\n"));
                // A convolution that PyTorch was told not to train: the file does not say so.
                let more = program.parameters().iter().map(|p| p.name.as_str());
                let more = more.filter(|name| !case.contains_key(&format!("grad.{name}")));
                let frozen = ["distribution.conv.weight"];
                assert!(
                    more.clone().all(|name| frozen.contains(&name)),
                    "{:?}",
                    more.collect::<Vec<_>>()
                );
            }
            parity::descend(&program, 1e-7, |name| case.contains_key(&format!("grad.{name}")));
        }
    }
}
