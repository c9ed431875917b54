//! A small search, for tests.

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;

use super::explore::{Found, Set, Trial};
use super::greedy::Layer;
use super::limits::{Limits, Point};
use super::pareto::{Candidate, Pareto, Setting};
use crate::analysis::{Figures, Outcome};

/// An outcome with this SQNR; half of what is lost of a share of 1 is agreement, the other half top-1.
pub fn outcome(sqnr_db: Option<f64>) -> Outcome {
    let lost = sqnr_db.map_or(0.0, |sqnr| 10_f64.powf(-sqnr / 10.0));
    let fidelity = Figures { sqnr_db, cosine: 1.0, agreement: 1.0 - lost, not_finite: 0 };
    Outcome { fidelity, top1: Some(0.9 - lost / 2.0), loss: None }
}

/// Two layers, four candidates of 2, 1, 1.2 and 1.5 ms, and the chosen one.
pub fn pareto() -> (Pareto, Candidate) {
    let layer = |node: &str| Layer {
        node: node.to_owned(),
        op: "Conv".to_owned(),
        noise: 0.1,
        work: 0.5,
        cost_ms: None,
    };
    let trial = |name: &str, set: &[usize], latency_ms, sqnr, engine: Option<Option<f64>>| Trial {
        name: name.to_owned(),
        set: set.iter().copied().collect::<Set>(),
        point: Point { latency_ms, outcome: outcome(sqnr), engine: engine.map(outcome) },
    };
    let trials = vec![
        trial("float", &[0, 1], 2.0, None, None),
        trial("quantized", &[], 1.0, Some(10.0), Some(Some(9.9))),
        trial("first 1", &[0], 1.2, Some(25.0), Some(Some(24.9))),
        trial("only b", &[1], 1.5, Some(12.0), Some(Some(11.9))),
    ];
    let series = trials.iter().map(|trial| vec![trial.point.latency_ms; 5]).collect();
    let found = Found { layers: vec![layer("a|b"), layer("c")], order: vec![0, 1], trials, series };
    let setting = Setting {
        target: Target::Onnxruntime,
        method: Method::Mse,
        backend: "onnxruntime".to_owned(),
        runtime: "1.32.0".to_owned(),
        batch: 1,
        threads: 2,
        samples: 256,
    };
    let limits = Limits { max_loss: Some(1.0), ..Limits::default() };
    let (pareto, chosen) = Pareto::of(&found, limits, setting);
    (pareto, chosen.unwrap())
}
