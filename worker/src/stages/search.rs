//! `search`: which layers to leave in float, by measured latency and error.

use qpipe::stages::contract::Metrics;
use qpipe::stages::search::Search;
use qpipe::stages::sensitivity::Measure;
use serde_json::json;

use super::Context;
use super::laboratory::{self, Laboratory};
use super::model::{check_images, model, write_json};
use super::on_engines;
use crate::analysis::{self, Images, Options, Report};
use crate::graph::Model;
use crate::inspect::Cost;
use crate::quant::formats::Formats;
use crate::quant::placement::{Plan, Request, Selection, nothing_left, plan_for};
use crate::quant::prepare::prepare;
use crate::quant::ranges::Ranges;
use crate::search::{
    self, Asked, Candidate, Closure, Found, Layer, Limits, Missed, Pareto, Set, Setting, decibels,
};
use crate::{Error, Result, bench, engine};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Search = context.config()?;
    let mut model = model(context, &config.model)?;
    prepare(&mut model)?;
    let ranges = Ranges::read(context.need("ranges")?).map_err(|error| error.key("ranges"))?;
    let dataset = context.dataset("data")?;
    check_images(&model, &dataset, config.batch_size as usize)?;
    let samples = context.samples(config.samples, &dataset);
    let request = Request {
        target: config.target,
        method: config.method,
        include: config.include.as_deref(),
        exclude: &config.exclude,
        formats: Formats::of(config.weights, config.activations, config.per_channel),
    };
    let version = config.version().map_err(super::insert_qdq::unknown_version)?;
    let images = Images {
        dataset: &dataset,
        samples,
        batch_size: config.batch_size as usize,
        seed: context.task.seed,
        threads: context.task.threads,
    };
    let selection = Selection::of(&model.graph, request.include, request.exclude)?;
    let plan = plan_for(&model.graph, &ranges, &request, &selection, version)?;
    let nodes: Vec<usize> =
        (0..plan.layers.len()).filter(|&index| plan.layers[index].quantized).collect();
    if nodes.is_empty() {
        return Err(nothing_left(&plan, &model.graph, &request, version));
    }
    let report = match context.input("sensitivity") {
        Some(path) => {
            fitting(Report::read(path)?, &config).map_err(|error| error.at(path.display()))?
        }
        None => {
            context.events.log("sensitivity: each layer alone");
            let options = Options {
                request,
                version,
                measure: &[Measure::Alone],
                samples,
                batch_size: images.batch_size,
                seed: images.seed,
                threads: images.threads,
            };
            analysis::measure(&model, &ranges, &dataset, &options, &|done, total| {
                context.events.progress(done, total, "images", "sensitivity");
            })?
        }
    };
    report.not_finite().into_iter().for_each(|told| context.events.warn(told));
    let layers = layers(&model, &nodes, &report)?;
    let place = |selected: &Selection| plan_for(&model.graph, &ranges, &request, selected, version);
    let closure = Closure::of(&model.graph, &nodes);
    let close = |set: &Set| with_followers(&closure.close(set), &nodes, &selection, &place);
    let limits = Limits::of(&config);
    let mut laboratory =
        Laboratory::new(context, &config, &model, place, selection.clone(), nodes.clone(), images)?;
    let asked = Asked {
        layers,
        close: &close,
        limits,
        max_engines: config.max_engines as usize,
        say: &|line| context.events.log(line),
    };
    let found = search::explore(&mut laboratory, asked)?;
    let (backend, runtime) = laboratory.runtime()?;
    let setting = Setting {
        target: config.target,
        method: config.method,
        backend,
        runtime,
        batch: config.batch as usize,
        threads: laboratory.threads(),
        samples: samples.min(dataset.len()),
    };
    let (pareto, chosen) = Pareto::of(&found, limits, setting);
    let table = search::markdown(&pareto);
    table.lines().for_each(|line| context.events.log(line));
    warn(context, &pareto);
    let chosen = chosen.map_err(|missed| refused(&found, limits, missed))?;
    if chosen.name == "float" {
        context.events.warn("the float model is chosen: no candidate with quantized layers keeps the limits and is faster");
    }
    on_engines::passed_over(context, &found, limits, &chosen);
    on_engines::chosen(context, &chosen);
    write_json(&pareto, context.output("pareto")?)?;
    for (port, text) in [
        ("chosen", search::fragment(&pareto, &chosen)),
        ("table", table),
        ("picture", search::svg(&pareto)),
    ] {
        let path = context.output(port)?;
        std::fs::write(path, text).map_err(|error| Error::io(path, &error))?;
    }
    Ok(metrics(&pareto, &chosen))
}

/// The set with the layers that rules leave in float beside these, such as a Flatten behind a pooling: so that no two sets are one model.
fn with_followers(
    set: &Set,
    nodes: &[usize],
    selection: &Selection,
    place: &dyn Fn(&Selection) -> Result<Plan>,
) -> Set {
    // What is refused here is refused once more, and told, when the set's engine is built.
    let Ok(plan) = place(&laboratory::selection(selection, nodes, set)) else {
        return set.clone();
    };
    (0..nodes.len()).filter(|&layer| !plan.layers[nodes[layer]].quantized).collect()
}

/// A report that is of the placement that is searched.
fn fitting(report: Report, config: &Search) -> Result<Report> {
    let own = (config.target, config.method);
    if (report.target, report.method) == own {
        return Ok(report);
    }
    Err(Error::user(format!(
        "sensitivities of target {} and method {}, expected {} and {}",
        report.target.name(),
        report.method.name(),
        own.0.name(),
        own.1.name()
    ))
    .key("sensitivity")
    .help("measure them with the keys that this stage has, or leave `sensitivity` out"))
}

/// What is known of the layers at `nodes`.
fn layers(model: &Model, nodes: &[usize], report: &Report) -> Result<Vec<Layer>> {
    let work = Cost::shares(model);
    let noise = |sqnr: Option<f64>| sqnr.map_or(0.0, |sqnr| 10_f64.powf(-sqnr / 10.0));
    let whole = noise(report.quantized.fidelity.sqnr_db);
    let layer = |&index: &usize| {
        let node = &model.graph.nodes[index];
        let of = report.layers.iter().find(|layer| layer.node == node.label());
        let of = of.ok_or_else(|| {
            Error::user(format!("the sensitivities have no layer \"{}\"", node.label()))
                .key("sensitivity")
                .help(
                    "measure those of this model, with the same `include`, `exclude` and `target`",
                )
        })?;
        let noise = match (of.alone, of.without) {
            (Some(alone), _) => noise(alone.fidelity.sqnr_db),
            (None, Some(without)) => (whole - noise(without.fidelity.sqnr_db)).max(0.0),
            (None, None) => 0.0,
        };
        let (node, op) = (node.label().to_owned(), node.op_type.clone());
        Ok(Layer { node, op, noise, work: work[index], cost_ms: None })
    };
    nodes.iter().map(layer).collect()
}

/// How far apart times of one engine may be before it is told, p90 over p10.
const WAVERS: f64 = 1.3;

/// Says so where outputs are not finite, where times waver, and where quantization does not pay.
fn warn(context: &Context, pareto: &Pareto) {
    for candidate in &pareto.candidates {
        let not_finite = candidate.judged().fidelity.not_finite;
        if not_finite > 0 {
            context.events.warn(format!(
                "\"{}\": {not_finite} output values are NaN or infinite where the float model's are not: its SQNR counts as {} dB",
                candidate.name,
                analysis::WORST
            ));
        }
    }
    let spread = |candidate: &Candidate| candidate.latency_ms.p90 / candidate.latency_ms.p10;
    let usual = bench::median(&mut pareto.candidates.iter().map(spread).collect::<Vec<f64>>());
    if usual > WAVERS {
        context.events.warn(format!(
            "times of one engine are up to {usual:.1} times as long as others (p90 over p10): something else runs on these processors; \
             candidates whose latencies are near each other may be in another order"
        ));
    }
    if pareto.faster_than_float {
        return;
    }
    let Some(float) = pareto.candidate("float") else { return };
    let others = pareto.candidates.iter().filter(|candidate| candidate.name != "float");
    let fastest = others.min_by(|a, b| a.latency_ms.median.total_cmp(&b.latency_ms.median));
    let Some(fastest) = fastest else { return };
    let vnni = pareto.setting.backend == "onnxruntime" && engine::saturates();
    context.events.warn(format!(
        "quantization is nowhere faster than float on this machine beyond what the clock leaves open: \"{}\", the fastest candidate with quantized layers, \
         takes {:.3} ms, the float engine {:.3} ms (× {:.2}, with {:.0} % certainty {:.2} to {:.2}){}",
        fastest.name,
        fastest.latency_ms.median,
        float.latency_ms.median,
        fastest.speedup.median,
        100.0 * fastest.speedup.coverage,
        fastest.speedup.low,
        fastest.speedup.high,
        if vnni { " (this processor has no VNNI instructions)" } else { "" }
    ));
}

/// That no candidate keeps the limits, with the best that were reached.
fn refused(found: &Found, limits: Limits, missed: Missed) -> Error {
    let float = &found.trials[0].point.outcome;
    let described = |index: usize| {
        let trial = &found.trials[index];
        let outcome = trial.point.judged();
        let simulated = trial.point.engine.map(|_| {
            let sqnr = decibels(&trial.point.outcome);
            format!(" of its engine ({sqnr:.1} dB in simulation)")
        });
        format!(
            "\"{}\", {:.3} ms, SQNR {:.1} dB{}, {:.2} points lost",
            trial.name,
            trial.point.latency_ms,
            decibels(outcome),
            simulated.unwrap_or_default(),
            search::lost(float, outcome)
        )
    };
    let best = [
        ("the fastest that is accurate enough is ", missed.fastest),
        ("the most accurate that is fast enough is ", missed.most_accurate),
    ];
    let best =
        best.into_iter().filter_map(|(what, index)| Some(format!("{what}{}", described(index?))));
    let best: Vec<String> = best.collect();
    let mut message =
        format!("no candidate keeps all limits ({}): {}", limits.words(float), best.join("; "));
    let mut help =
        "raise `max_latency_ms` or allow more loss; the log has the table of all candidates"
            .to_owned();
    let in_simulation = on_engines::in_simulation(found, limits);
    if let Some(trial) = in_simulation.map(|place| &found.trials[place]) {
        message =
            format!("{message}. In simulation \"{}\" keeps them: {}", trial.name, on_engines::WHY);
        help = format!("{}; or {help}", on_engines::WHAT_HELPS);
    }
    Error::user(message).key("max_latency_ms").help(help)
}

fn metrics(pareto: &Pareto, chosen: &Candidate) -> Metrics {
    let latency = |name: &str| pareto.candidate(name).map(|own| own.latency_ms.median);
    let mut metrics = Metrics::from([
        ("engines".to_owned(), json!(pareto.candidates.len())),
        ("layers".to_owned(), json!(pareto.layers.len())),
        ("samples".to_owned(), json!(pareto.setting.samples)),
        ("chosen".to_owned(), json!(chosen.name)),
        ("float_layers".to_owned(), json!(chosen.float_layers.len())),
        ("latency_ms".to_owned(), json!(chosen.latency_ms.median)),
        ("float_latency_ms".to_owned(), json!(latency("float"))),
        ("quantized_latency_ms".to_owned(), json!(latency("quantized"))),
        ("speedup".to_owned(), json!(chosen.speedup.median)),
        ("faster_than_float".to_owned(), json!(pareto.faster_than_float)),
        ("sqnr_db".to_owned(), json!(chosen.outcome.fidelity.sqnr_db)),
        ("agreement".to_owned(), json!(chosen.outcome.fidelity.agreement)),
        ("lost_points".to_owned(), json!(chosen.lost)),
    ]);
    if let Some(engine) = &chosen.engine {
        let fidelity = engine.outcome.fidelity;
        metrics.insert("engine_sqnr_db".to_owned(), json!(fidelity.sqnr_db));
        metrics.insert("engine_agreement".to_owned(), json!(fidelity.agreement));
        metrics.insert("engine_lost_points".to_owned(), json!(engine.lost));
        if let Some(top1) = engine.outcome.top1 {
            metrics.insert("engine_top1".to_owned(), json!(top1));
        }
    }
    if let Some(top1) = chosen.outcome.top1 {
        metrics.insert("top1".to_owned(), json!(top1));
    }
    metrics
}

#[cfg(test)]
mod tests {
    use qpipe::stages::calibrate::Method;
    use qpipe::stages::insert_qdq::Target;

    use super::*;
    use crate::graph::{Dim, Graph, Node, TensorData, ValueInfo};
    use crate::quant::fixture;
    use crate::quant::placement::plan_selected;

    #[test]
    fn what_rules_leave_in_float_with_a_set_is_of_it() {
        let dims = [1, 2, 4, 4].map(Dim::Fixed);
        let graph = Graph {
            inputs: vec![ValueInfo::f32("x", dims.to_vec())],
            outputs: vec![ValueInfo::f32("y", vec![])],
            nodes: vec![
                Node::new("conv", "Conv", &["x", "w"], &["c"]),
                Node::new("pool", "GlobalAveragePool", &["c"], &["p"]),
                Node::new("flat", "Flatten", &["p"], &["f"]),
                Node::new("fc", "Gemm", &["f", "v"], &["y"]),
            ],
            initializers: [
                ("w".to_owned(), TensorData::f32(&[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0])),
                ("v".to_owned(), TensorData::f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0])),
            ]
            .into_iter()
            .collect(),
            ..Graph::default()
        };
        let ranges = fixture::rising(&graph);
        let request = fixture::request(Target::Onnxruntime, Method::Max);
        let selection = Selection::of(&graph, None, &[]).unwrap();
        let place = |selected: &Selection| plan_selected(&graph, &ranges, &request, selected);
        let all = place(&selection).unwrap();
        let nodes: Vec<usize> = (0..4).filter(|&node| all.layers[node].quantized).collect();
        assert_eq!(nodes, [0, 1, 2, 3]);
        let with = |set: &[usize]| {
            with_followers(&set.iter().copied().collect(), &nodes, &selection, &place)
        };
        assert_eq!(with(&[]), Set::new());
        assert_eq!(with(&[1]), Set::from([1, 2]), "the pooling's floats are what is reshaped");
        assert_eq!(with(&[3]), Set::from([3]));
    }
}
