//! What GPUs a stage sees, and that its key is that of the GPU that it uses: with a worker, and an `nvidia-smi`, that are scripts.

use crate::project::{Project, Said};

/// A worker whose fact is the kind of the first GPU that it sees, of those of `cards`, and whose engine says what it saw.
const WORKER: &str = r#"#!/bin/sh
seen=${CUDA_VISIBLE_DEVICES-all}
case "$1" in
facts)
    first=${seen%%,*}
    [ "$first" = all ] && first=0
    [ -n "$first" ] || { echo '{"facts": {}, "missing": {"tensor-rt": {"message": "no GPU is visible"}}}'; exit 1; }
    echo "{\"facts\": {\"tensor-rt\": \"10.3 on $(sed -n "$((first + 1))p" cards)\"}}" ;;
run)
    out=$(sed -n 's/.*"engine": "\(.*\/out\/.*\)".*/\1/p' "$2")
    mkdir "$out"; echo "$seen $CUDA_DEVICE_ORDER" > "$out/seen"; echo {} > "$out/../layers.json"
    echo '{"event": "done", "metrics": {}}' ;;
esac
"#;

/// Lists `cards` as the real one does.
const NVIDIA_SMI: &str = r#"#!/bin/sh
number=0
while read -r card; do
    echo "$number, GPU-$number, $card, 550.54.15, 8.0, Disabled"
    number=$((number + 1))
done < CARDS
"#;

fn engine(resources: &str) -> String {
    format!(
        "[stages.engine]\nkind = \"build-engine\"\nmodel = {{ onnx = \"net.onnx\" }}\nbackend = \"tensorrt\"\n{resources}\n"
    )
}

fn project(cards: &[&str], pipeline: &str) -> Project {
    let project = Project::new(pipeline);
    project.write("net.onnx", "a model");
    project.write("cards", &(cards.join("\n") + "\n"));
    let cards = project.path("cards").display().to_string();
    project.program("worker", &WORKER.replace(" cards)", &format!(" '{cards}')")));
    project.program("bin/nvidia-smi", &NVIDIA_SMI.replace("CARDS", &format!("'{cards}'")));
    project
}

fn said(project: &Project, arguments: &[&str], visible: Option<&str>) -> Said {
    let mut command = project.command(arguments);
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    command.env("QPIPE_WORKER", project.path("worker")).env("PATH", path);
    command.env_remove("CUDA_VISIBLE_DEVICES").env_remove("CUDA_DEVICE_ORDER");
    command.envs(visible.map(|visible| ("CUDA_VISIBLE_DEVICES", visible)));
    project.said(&mut command)
}

fn run(project: &Project, gpus: &str) -> Said {
    said(project, &["run", "p.toml", "--gpus", gpus], None)
}

const MIXED: &[&str] = &["A100", "T4"];

/// An engine of one card was served to a stage on the other.
#[test]
fn a_stage_has_the_key_of_the_gpu_that_it_uses() {
    for resources in ["", "resources = { gpus = 1 }", "resources = { gpus = 0.5 }"] {
        let project = project(MIXED, &engine(resources));
        let saw = || project.artifact("engine/engine/seen");
        assert_eq!(run(&project, "1").code, Some(0));
        assert_eq!(saw(), "1 PCI_BUS_ID\n", "{resources}");
        let other = run(&project, "0");
        assert!(other.stderr.contains("engine: running (tensor-rt changed)"), "{other:?}");
        assert_eq!(saw(), "0 PCI_BUS_ID\n", "{resources}");
        assert!(run(&project, "1").stderr.contains("engine: cached"), "{resources}");
        assert_eq!(saw(), "1 PCI_BUS_ID\n", "{resources}");
    }
}

/// Which one a stage is given is known only when it starts.
#[test]
fn gpus_of_another_kind_are_not_given_to_stages() {
    let project = project(MIXED, &engine("resources = { gpus = 1 }"));
    let told = run(&project, "0,1");
    let warning = "warning: stages with `resources.gpus` are given GPUs of one kind, since their cache keys name it: \
                   0 (A100 (compute 8.0, driver 550)), not 1: T4 (compute 8.0, driver 550); `--gpus 1` gives them those\n";
    assert!(told.stderr.contains(warning), "{told:?}");
    assert_eq!(project.artifact("engine/engine/seen"), "0 PCI_BUS_ID\n");
    assert!(!run(&project, "0,1").stderr.contains("of one kind"), "it is up to date");
    assert!(run(&project, "1,0").stderr.contains("tensor-rt changed"), "the first is another");
    assert_eq!(project.artifact("engine/engine/seen"), "1 PCI_BUS_ID\n");

    project.write("p.toml", &engine("resources = { gpus = 2 }"));
    project.write("net.onnx", "another model");
    let few = run(&project, "0,1");
    assert!(few.code != Some(0) && few.stderr.contains("GPUs"), "{few:?}");
    project.write("cards", "A100\nA100\n");
    assert_eq!(run(&project, "0,1").code, Some(0));
    assert_eq!(project.artifact("engine/engine/seen"), "0,1 PCI_BUS_ID\n");
}

/// `--gpus` holds for all stages of the run, and `gpus = 0` is none.
#[test]
fn a_stage_sees_what_the_run_may_use() {
    let stage = |name: &str, resources: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nrun = \"printenv CUDA_VISIBLE_DEVICES > $QPIPE_OUT_SEEN # {name}\"\noutputs = {{ seen = \"seen\" }}\n{resources}\n"
        )
    };
    let stages =
        [("any", ""), ("none", "resources = { gpus = 0 }"), ("one", "resources = { gpus = 1 }")];
    let pipeline = stages.map(|(name, resources)| stage(name, resources)).concat();
    for (gpus, visible, expected) in [
        (Some("3"), None, ["3", "", "3"]),
        (Some("3"), Some("0,1"), ["3", "", "3"]),
        (Some("3,4"), None, ["3,4", "", "3"]),
        (None, Some("5"), ["5", "", "5"]),
    ] {
        let project = project(&["A100"; 8], &pipeline);
        let arguments =
            [&["run", "p.toml"][..], &gpus.map_or(vec![], |gpus| vec!["--gpus", gpus])].concat();
        let done = said(&project, &arguments, visible);
        assert_eq!(done.code, Some(0), "{done:?}");
        let saw = ["any", "none", "one"].map(|name| project.artifact(&format!("{name}/seen")));
        assert_eq!(saw.each_ref().map(|saw| saw.trim_end()), expected, "{gpus:?} {visible:?}");
    }
    // A stage that needs none lacks nothing; one of TensorRT does.
    let project = project(MIXED, &engine("resources = { gpus = 0 }"));
    let lacks = run(&project, "0");
    assert!(lacks.stderr.contains("needs TensorRT (trtexec): no GPU is visible"), "{lacks:?}");
}

/// Two stages had it at once, or a stage that needed two of them was never run, with exit code 0.
#[test]
fn a_gpu_that_is_named_twice_is_one() {
    let stage = |gpus: &str| {
        format!(
            "[stages.a]\nkind = \"command\"\nrun = \"echo $CUDA_VISIBLE_DEVICES > $QPIPE_OUT_SEEN\"\noutputs = {{ seen = \"seen\" }}\n{gpus}\n"
        )
    };
    let two = project(&["A100"; 2], &stage("resources = { gpus = 2 }"));
    let told = |names: &str| said(&two, &["run", "p.toml", "--gpus", names], None);
    let inherited = |names: &str| said(&two, &["run", "p.toml"], Some(names));
    let once = [
        told("0,0"),
        told("0,GPU-0"),
        told("GPU-0,0,GPU-"),
        inherited("1,1"),
        inherited("GPU-1,1"),
    ];
    for few in once {
        let message = "needs 2 GPUs; this machine has 1\n";
        assert!(few.code == Some(3) && few.stderr.contains(message), "{few:?}");
    }
    assert_eq!(told("0,GPU-0,1").code, Some(0));
    assert_eq!(two.artifact("a/seen"), "0,1\n");
    // To CUDA a list that names one twice is no list.
    let any = project(&["A100"; 2], &stage(""));
    assert_eq!(run(&any, "GPU-1,1").code, Some(0));
    assert_eq!(any.artifact("a/seen"), "GPU-1\n");
}

#[test]
fn a_gpu_that_is_not_there_is_refused() {
    let project = project(MIXED, &engine("resources = { gpus = 1 }"));
    let refused = run(&project, "0,7");
    let message = "error: --gpus 7: there is no such GPU; this machine has 0 (A100), 1 (T4)\n  \
                   help: name GPUs by their numbers in nvidia-smi or by their ids (nvidia-smi -L)\n";
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(2), message));
}

/// The fact is that of the order in which a stage sees them.
#[test]
fn another_order_is_another_first_gpu() {
    let project = project(MIXED, &engine(""));
    assert_eq!(said(&project, &["run", "p.toml"], Some("0,1")).code, Some(0));
    let plan = |visible, gpus: &[&str]| {
        said(&project, &[&["plan", "p.toml"], gpus].concat(), visible).stdout
    };
    assert!(plan(Some("1,0"), &[]).contains("tensor-rt changed"));
    assert!(plan(None, &["--gpus", "1"]).contains("tensor-rt changed"));
    assert!(plan(None, &["--gpus", "0"]).contains("cached"));
}
