//! Tests of the schema for editors: it takes what the runner takes, and refuses what it can.

use jsonschema::Validator;

use super::editor_schema;

fn schema() -> Validator {
    let schema = serde_json::from_str(&editor_schema()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn takes(schema: &Validator, text: &str) -> bool {
    let file: toml::Table = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    schema.is_valid(&serde_json::to_value(file).unwrap())
}

#[test]
fn it_takes_all_pipelines_of_the_project() {
    let schema = schema();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // `NAME.layers.toml` is a part that a search has written.
        let part = path.file_stem().is_some_and(|stem| stem.to_string_lossy().contains('.'));
        if path.extension().is_some_and(|ending| ending == "toml") && !part {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(takes(&schema, &text), "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 10);
    let starter = include_str!("../../cli/starter.toml");
    assert!(takes(&schema, starter), "the starter");
}

/// A stage that is right but for the lines that are added.
const GOOD: &str = "[stages.a]\nkind = \"command\"\nrun = \"true\"\noutputs = { o = \"o\" }\n";

#[test]
fn it_takes_and_refuses_what_the_runner_does() {
    let schema = schema();
    let takes = |text: &str| takes(&schema, text);
    for more in [
        "",
        "matrix = \"${params.matrix}\"",
        "matrix = { n = \"${params.list}\" }",
        "matrix = { n = [\"${params.one}\", 6, 0.5, true], exclude = [{ n = 6 }], include = \"${params.more}\" }",
        "timeout = \"1 h 30 min\"",
        "timeout = \" 1.5h30min\"",
        "timeout = \"${params.time}\"",
        "timeout = 5",
        "retries = { count = 2, backoff = \"1 s\" }",
        "resources = { gpus = 0.5, memory = \"8 GB\", cpus = \"${params.cpus}\" }",
        "resources = { gpus = 2, memory = 8 }",
        "[guards.g]\nmetric = \"a.x\"\nmin = 1\nmax_drop = 1",
        "[guards.g]\nmetric = \"a[b.c,1].x.y\"\nbaseline = \"${params.figure}\"\nmax_drop = 1",
        "[profiles.p.stages.a]\nmatrix = {}",
    ] {
        assert!(takes(&format!("{GOOD}{more}")), "{more}");
    }
    for more in [
        "matrix = { n = [[1], [2]] }",
        "matrix = { n = [\"\"] }",
        "matrix = { \"a b\" = [1] }",
        "matrix = {}",
        "matrix = { n = [1, 1] }",
        "timeout = \"5 parsecs\"",
        "timeout = \"5\"",
        "resources = { memory = \"8 XB\" }",
        "resources = { gpus = 1.5 }",
        "resources = { gpus = -1 }",
        "[stages.\"a b\"]\nkind = \"command\"\nrun = \"true\"\noutputs = { o = \"o\" }",
        "[stages.data]\nkind = \"command\"\nrun = \"true\"\noutputs = { o = \"o\" }",
        "[params]\n\"a b\" = 1",
        "[profiles.\"a b\".params]\na = 1",
        "[data.\"a b\"]\nformat = \"image-folder\"\npath = \"d\"",
        "[data.d]\nformat = \"image-folder\"",
        "[guards.\"a b\"]\nmetric = \"a.x\"\nmin = 1",
        "[guards.g]\nmetric = \"a.x\"",
        "[guards.g]\nmetric = \"a\"\nmin = 1",
        "[guards.g]\nmetric = \"a.x\"\nmin = 1\nmax = 2\nmax_drop = 1",
        "[remote]\nmode = \"read-only\"",
        "[stages.b]\nrun = \"true\"",
    ] {
        assert!(!takes(&format!("{GOOD}{more}")), "{more}");
    }
    let outputs = |outputs: &str| {
        takes(&format!("[stages.a]\nkind = \"command\"\nrun = \"true\"\noutputs = {outputs}\n"))
    };
    for good in ["a", "a/b.c", "..a", "a b", ".a", "...", "${params.o}"] {
        assert!(outputs(&format!("{{ o = \"{good}\" }}")), "{good}");
        assert!(outputs(&format!("{{ o = {{ file = \"{good}\", type = \"file\" }} }}")), "{good}");
    }
    for bad in ["", "/a", "..", "a/../b", "../a", "./a", "a/./b", "a//b", "a/"] {
        assert!(!outputs(&format!("{{ o = \"{bad}\" }}")), "{bad}");
        assert!(!outputs(&format!("{{ o = {{ file = \"{bad}\", type = \"file\" }} }}")), "{bad}");
    }
    assert!(!outputs("{}"));
    let train = |device: &str| {
        takes(&format!(
            "[stages.a]\nkind = \"evaluate\"\nmodel = \"m\"\ndata = \"data.d\"\ndevice = \"{device}\"\n"
        ))
    };
    assert!(["auto", "cpu", "cuda", "cuda:15", "${params.d}"].into_iter().all(train));
    assert!(!["gpu", "", "cuda:", "cuda:12345"].into_iter().any(train));
    // What a file that extends others does not repeat stands in those.
    assert!(takes(
        "extends = \"base.toml\"\n[stages.a]\noutputs = {}\nmatrix = {}\n[guards.g]\nmax = 3\n"
    ));
    assert!(takes(
        "extends = \"base.toml\"\n[stages.a]\noptimizer = { lr = 0.1 }\n[remote]\nmode = \"read-only\"\n"
    ));
    assert!(takes("extends = \"base.toml\"\n[data.d]\nlimit = 5\n"));
    assert!(!takes("extends = \"base.toml\"\n[stages.a]\noptimizer = { rate = 0.1 }\n"));
    assert!(!takes("extends = \"base.toml\"\n[stages.a]\nkind = \"command\"\nepochs = 1\n"));
    assert!(!takes("[params]\na = 1\n"));
}
