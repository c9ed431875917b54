//! Automatic mixed precision in training.

use qpipe::stages::insert_qdq::Target;
use qpipe_worker::interp::Scales;
use qpipe_worker::torch::Half;
use qpipe_worker::train::{Fit, Fitted};

use crate::finetuning::{bytes, classifier, fit, quantized, trained};
use crate::quant::dataset;

/// Mixed precision trains as far as float32 does, keeps float32 parameters, and goes on from a checkpoint with the same bytes.
#[test]
fn mixed_precision_trains_and_goes_on_as_if_it_had_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (_, model) = quantized(&dataset, Target::Tensorrt);
    let run = |amp: Option<Half>, scales: Scales, stops: &[u32]| {
        let checkpoints = tempfile::tempdir().unwrap();
        let mut last = None;
        for &epochs in stops {
            let own = classifier(&model, &dataset, scales, &[]);
            let fit = Fit { amp, epochs, ..fit(&dataset, checkpoints.path()) };
            last = Some(trained(&fit, own, None));
        }
        last.unwrap()
    };
    let loss = |fitted: &Fitted| fitted.history.last().unwrap().train_loss.unwrap();
    let (float, _) = run(None, Scales::Frozen, &[2]);
    for half in [Half::Bfloat16, Half::Float16] {
        let (whole, expected) = run(Some(half), Scales::Frozen, &[2]);
        assert!((loss(&whole) - loss(&float)).abs() < 0.05, "{half:?}: {}", loss(&whole));
        assert_ne!(loss(&whole), loss(&float), "{half:?} computes as float32");
        let (_, found) = run(Some(half), Scales::Frozen, &[1, 2]);
        assert_eq!(bytes(&found), bytes(&expected), "{half:?}");
    }
    let (learned, _) = run(Some(Half::Float16), Scales::Learned, &[2]);
    assert!(loss(&learned).is_finite());
}
