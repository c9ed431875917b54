//! Random graphs: whatever network is quantized, what is deployed computes what was simulated, and our own lint has nothing to say.
//!
//! Seeds are fixed. More of them by hand: `QPIPE_RANDOM_GRAPHS=1000..3000`; a failure names its seed and the smallest graph that fails so.

mod activations;
mod apart;
mod check;
mod draft;
mod forms;
mod joining;
mod layers;
mod learning;
mod measuring;
mod moving;
mod pooling;
mod rungs;
mod shrink;
mod table;
mod tokens;
mod training;
mod variant;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;

use check::check;
use world::World;

/// Seeds of the default run.
const SEEDS: Range<u64> = 0..40;
/// SQNR of outputs that is told of, dB.
const LITTLE: f64 = 10.0;
/// Failures that are made smaller.
const SHRUNK: usize = 2;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("QPIPE_RANDOM_GRAPHS") else { return SEEDS };
    let ends = text.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
    let Some((Ok(from), Ok(to))) = ends else {
        panic!("QPIPE_RANDOM_GRAPHS is \"{text}\", expected seeds such as 1000..3000")
    };
    from..to
}

#[test]
fn what_is_deployed_of_random_graphs_is_what_was_simulated() {
    tch::set_num_threads(1);
    let worlds = [8, 12].map(World::new);
    let mut failures: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let (mut quantized, mut collapsed, mut report) = (0, Vec::new(), String::new());
    for seed in seeds() {
        let at = usize::from(seed.is_multiple_of(3));
        let world = &worlds[at];
        let model = table::model(seed, [8, 12][at]);
        match check(&model, world, seed) {
            Ok(None) => {}
            Ok(Some(found)) => {
                quantized += 1;
                for (variant, decibels) in found {
                    if decibels < LITTLE && variant.is_int8() {
                        collapsed.push((seed, variant.target, decibels));
                    }
                }
            }
            Err(failure) => {
                let seeds = failures.entry(failure.what.clone()).or_default();
                seeds.push(seed);
                if seeds.len() <= SHRUNK {
                    let same = |model: &_| {
                        check(model, world, seed).is_err_and(|other| other.what == failure.what)
                    };
                    let model = shrink::shrink(model, world, &same);
                    let detail =
                        check(&model, world, seed).err().map_or(String::new(), |f| f.detail);
                    let graph = shrink::describe(&model);
                    let told = format!("seed {seed}: {}: {detail}\n{graph}", failure.what);
                    // Of many seeds it is wanted at once.
                    eprintln!("{told}");
                    report += &told;
                }
            }
        }
    }
    println!("{quantized} graphs quantized; below {LITTLE} dB: {collapsed:?}");
    assert!(failures.is_empty(), "{report}{failures:#?}");
}
