//! `qpipe check`: what a user sees, character by character.
//!
//! Each `mistakes/NAME.toml` is a pipeline with mistakes; what `qpipe check` says about it stands in
//! `mistakes/NAME.txt`; files that it extends stand in `mistakes/base`. Lines `#! ARGUMENT` at its top are given to the command. After a wanted change,
//! `QPIPE_BLESS=1 cargo test -p qpipe` writes the `.txt` files; read the difference before you commit it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::loading::shipped;
use crate::project::Project;

/// Runs the program in a folder.
pub fn qpipe(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qpipe"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("QPIPE_TEST_UNSET")
        .env_remove("QPIPE_PROFILE")
        .env("QPIPE_TEST_EPOCHS", "3")
        .output()
        .unwrap()
}

/// What it printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A folder with the files that the pipelines name.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("qpipe-").tempdir().unwrap();
    fs::create_dir(folder.path().join("images")).unwrap();
    fs::write(folder.path().join("model.onnx"), "").unwrap();
    for class in ["train/bar", "train/circle", "train/cross", "test/circle", "test/cross"] {
        fs::create_dir_all(folder.path().join("folders").join(class)).unwrap();
    }
    for class in ["bar", "circle", "cross"] {
        fs::create_dir_all(folder.path().join("folders/listed").join(class)).unwrap();
    }
    for image in ["bar/a.png", "circle/b.png", "cross/._c.png"] {
        fs::write(folder.path().join("folders/listed").join(image), "").unwrap();
    }
    fs::write(folder.path().join("folders/a.png"), "").unwrap();
    for (table, rows) in [
        ("numbers", "a.png,0\na.png,1\n"),
        ("gone", "a.png,cat\nb.png,dog\nc.png,dog\n"),
        ("unlabelled", "a.png,cat\na.png,\n"),
        ("mixed", "a.png,0\na.png,O\n"),
        ("unquoted", "a.png,crane, bird\n"),
    ] {
        let table = folder.path().join("folders").join(table).with_extension("csv");
        fs::write(table, format!("path,label\n{rows}")).unwrap();
    }
    fs::create_dir(folder.path().join("base")).unwrap();
    for name in ["broken.toml", "loop.toml", "values.toml"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mistakes/base").join(name);
        fs::copy(from, folder.path().join("base").join(name)).unwrap();
    }
    folder
}

fn mistakes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mistakes");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut pipelines: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
    pipelines.sort();
    pipelines
}

#[test]
fn each_mistake_is_shown_at_its_place() {
    let bless = std::env::var_os("QPIPE_BLESS").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    let pipelines = mistakes();
    for pipeline in &pipelines {
        let folder = folder();
        let name = pipeline.file_name().unwrap().to_str().unwrap();
        let source = fs::read_to_string(pipeline).unwrap();
        fs::write(folder.path().join(name), &source).unwrap();
        let more = source.lines().map_while(|line| line.strip_prefix("#! "));
        let arguments: Vec<&str> = ["check", name].into_iter().chain(more).collect();
        let output = qpipe(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "", "{name}");
        let found = text(&output.stderr).replace(folder.path().to_str().unwrap(), "/FOLDER");
        let expected = pipeline.with_extension("txt");
        if bless {
            fs::write(&expected, found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("── {name} now gives\n{found}"));
        }
    }
    assert!(pipelines.len() >= 20, "only {} pipelines were found", pipelines.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All that it printed.
pub fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_sound_pipeline_is_summed_up_in_a_line() {
    let folder = shipped();
    let output = qpipe(&folder.path().join("pipelines"), &["check", "quickstart.toml"]);
    assert_eq!(
        text(&output.stdout),
        "quickstart.toml: ok, 3 data sets, 11 stages, 44 with all cells of their matrices\n"
    );
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_missing_file_is_the_users_mistake() {
    let folder = folder();
    let output = qpipe(folder.path(), &["check", "none.toml"]);
    assert_eq!(
        text(&output.stderr),
        "qpipe::config::file\n\n  × cannot read none.toml: No such file or directory (os error 2)\n  \
         help: name a pipeline file; `qpipe init` writes one to start from\n\nnone.toml: 1 mistake\n"
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn colours_come_when_asked_for() {
    let folder = folder();
    fs::write(folder.path().join("p.toml"), "[pipeline]\nsead = 1\n").unwrap();
    let coloured = |more: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qpipe"));
        command.args(["check", "p.toml"]).args(more).current_dir(folder.path());
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR"] {
            command.env_remove(name);
        }
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr).contains('\u{1b}')
    };
    assert!(!coloured(&[], &[]));
    assert!(coloured(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(coloured(&["--color", "always"], &[("NO_COLOR", "1")]));
    assert!(!coloured(&["--color=never"], &[("CLICOLOR_FORCE", "1")]));
    // The command line's own errors follow it too.
    assert!(coloured(&["--color=always", "--nothing"], &[]));
}

/// A stage that trains a file; a worker that says what stands in `told`, and notes in `asked` what it is asked.
fn trained() -> Project {
    let project = Project::new(
        r#"
[data.train]
format = "image-folder"
path = "images"

[stages.fp32]
kind = "train"
model = { onnx = "model.onnx" }
train = "data.train"
valid = "data.train"
epochs = 1
optimizer = { kind = "sgd", lr = 0.1 }
"#,
    );
    fs::create_dir(project.path("images")).unwrap();
    project.write("model.onnx", "");
    let (told, asked) = (project.path("told"), project.path("asked"));
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\ncat {}\n", asked.display(), told.display());
    project.program("worker", &script);
    project
}

#[test]
fn a_model_that_cannot_be_trained_is_a_mistake_at_its_key() {
    let project = trained();
    let file = project.path("model.onnx");
    let check = || {
        let worker = project.path("worker");
        project.said(project.command(&["check", "p.toml"]).env("QPIPE_WORKER", worker))
    };
    let tell = |refused: serde_json::Value| {
        let told = serde_json::json!([{ "word": "trainable", "file": file, "refused": refused }]);
        project.write("told", &told.to_string());
    };
    tell(serde_json::Value::Null);
    let said = check();
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    let asked = format!("model trainable {}\n", file.display());
    assert_eq!(project.read("asked"), asked, "once for all stages");

    let message = "node \"cmp\" (Shape), opset 17: this operator has no gradient";
    tell(serde_json::json!({ "blame": "user", "message": message, "help": "cut it there" }));
    let said = check();
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
    for part in ["qpipe::config::untrainable", "p.toml:8:18", "cut it there", "p.toml: 1 mistake"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    let joined = said.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains("(Shape), opset 17"), "{joined}");

    // Behind another stage it is the same file.
    let text = project.read("p.toml").replace("[stages.fp32]", "[stages.first]");
    let more = r#"
[stages.fp32]
kind = "train"
model = "first.model"
train = "data.train"
valid = "data.train"
epochs = 1
optimizer = { kind = "sgd", lr = 0.1 }
"#;
    project.write("p.toml", &(text + more));
    let said = check();
    assert!(said.stderr.ends_with("p.toml: 1 mistake\n"), "{}", said.stderr);
}

#[test]
fn a_model_that_cannot_be_calibrated_is_a_mistake_at_its_key() {
    let project = trained();
    let text = project.read("p.toml");
    let (data, _) = text.split_once("[stages.fp32]").unwrap();
    let stage = "[stages.ranges]\nkind = \"calibrate\"\nmodel = { onnx = \"model.onnx\" }\ndata = \"data.train\"\nsamples = 8\n";
    project.write("p.toml", &format!("{data}{stage}"));
    let file = project.path("model.onnx");
    let message = "node \"lstm1\" (LSTM), opset 17: this operator cannot be executed";
    let refused =
        serde_json::json!({ "blame": "user", "message": message, "help": "cut it there" });
    let told = serde_json::json!([
        { "word": "trainable", "file": file, "refused": null },
        { "word": "calibratable", "file": file, "refused": refused },
    ]);
    project.write("told", &told.to_string());
    let mut command = project.command(&["check", "p.toml"]);
    let said = project.said(command.env("QPIPE_WORKER", project.path("worker")));
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
    assert_eq!(project.read("asked"), format!("model calibratable {}\n", file.display()));
    for part in
        ["qpipe::config::uncalibratable", "p.toml:8:18", "`ranges` calibrates it", "cut it there"]
    {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    // Where it is trained too, one process is asked after both.
    project.write("p.toml", &(text + stage));
    fs::remove_file(project.path("asked")).unwrap();
    let mut command = project.command(&["check", "p.toml"]);
    let said = project.said(command.env("QPIPE_WORKER", project.path("worker")));
    let asked = format!("model trainable {0} calibratable {0}\n", file.display());
    assert_eq!((said.code, project.read("asked")), (Some(2), asked));
    assert!(said.stderr.ends_with("p.toml: 1 mistake\n"), "{}", said.stderr);
}

/// Through the stages that hand the model on, and where none of them says the size of its images.
#[test]
fn an_engine_of_a_file_of_free_image_size_is_a_mistake_at_the_files_key() {
    let project = trained();
    let text = project.read("p.toml");
    let (data, _) = text.split_once("[stages.fp32]").unwrap();
    let stages = "[stages.onnx]\nkind = \"export-onnx\"\nmodel = { onnx = \"model.onnx\" }\n\
                  [stages.engine]\nkind = \"build-engine\"\nmodel = \"onnx.model\"\nbackend = \"onnxruntime\"\n";
    project.write("p.toml", &format!("{data}{stages}"));
    let file = project.path("model.onnx");
    let refused = serde_json::json!({ "blame": "user", "message": "its input must be fixed", "help": "say the size" });
    let told = serde_json::json!([{ "word": "buildable", "file": file, "refused": refused }]);
    project.write("told", &told.to_string());
    let check = || {
        let mut command = project.command(&["check", "p.toml"]);
        project.said(command.env("QPIPE_WORKER", project.path("worker")))
    };
    let said = check();
    assert_eq!(said.code, Some(2), "{said:?}");
    assert_eq!(project.read("asked"), format!("model buildable {}\n", file.display()));
    for part in [
        "qpipe::config::unbuildable",
        "p.toml:8:18",
        "`engine` builds an engine of what comes of it",
        "say the size",
    ] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    fs::remove_file(project.path("asked")).unwrap();
    let sized = stages.replace("\"model.onnx\" }", "\"model.onnx\", image_size = [8, 16] }");
    project.write("p.toml", &format!("{data}{sized}"));
    let said = check();
    assert_eq!((said.code, project.read("asked")), (Some(0), String::new()), "{said:?}");
}

#[test]
fn a_worker_that_is_not_there_is_no_mistake_of_the_file() {
    let project = trained();
    let missing = project.path("nowhere");
    let mut command = project.command(&["check", "p.toml"]);
    let said = project.said(command.env("QPIPE_WORKER", missing));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.starts_with("note: whether `"), "{}", said.stderr);
    assert!(said.stderr.contains("qpipe-worker is missing"), "{}", said.stderr);
    // Nobody is asked where no stage trains a file.
    let zoo = "{ arch = \"resnet18\", classes = 10, image_size = 32 }";
    let text = project.read("p.toml").replace("{ onnx = \"model.onnx\" }", zoo);
    project.write("p.toml", &text);
    let mut command = project.command(&["check", "p.toml"]);
    let said = project.said(command.env("QPIPE_WORKER", project.path("nowhere")));
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
}

/// PyTorch's older exporter knows the axes of inputs that it was told the names of.
#[test]
fn the_guides_export_names_the_input_whose_axes_are_dynamic() {
    let guide = include_str!("../../docs/guide.md");
    let commands = guide.split("torch.onnx.export(").skip(1);
    let older: Vec<&str> = commands
        .map(|rest| rest.split('`').next().unwrap_or_default())
        .filter(|command| command.contains("dynamic_axes"))
        .collect();
    assert!(!older.is_empty());
    for command in older {
        assert!(
            command.contains("input_names=[\"input\"], dynamic_axes={\"input\": {0:"),
            "{command}"
        );
    }
}

/// The guide's pipeline begins with an export: of what came behind it, nothing was checked. Nor was it of what is evaluated.
#[test]
fn a_file_that_is_exported_first_is_checked_too() {
    let project = trained();
    let text = project.read("p.toml");
    let (data, train) = text.split_once("[stages.fp32]").unwrap();
    let train = train.replace("{ onnx = \"model.onnx\" }", "\"onnx.model\"");
    let first = "[stages.onnx]\nkind = \"export-onnx\"\nmodel = { onnx = \"model.onnx\" }\n";
    let more = "[stages.ranges]\nkind = \"calibrate\"\nmodel = \"onnx.model\"\ndata = \"data.train\"\nsamples = 8\n\
                [stages.plain]\nkind = \"evaluate\"\nmodel = \"onnx.model\"\ndata = \"data.train\"\n";
    project.write("p.toml", &format!("{data}{first}[stages.fp32]{train}{more}"));
    let file = project.path("model.onnx");
    let check = |word: &str| {
        let refused = serde_json::json!({ "blame": "user", "message": "it is no such model", "help": "cut it there" });
        let told = serde_json::json!([{ "word": word, "file": file, "refused": refused }]);
        project.write("told", &told.to_string());
        let mut command = project.command(&["check", "p.toml"]);
        project.said(command.env("QPIPE_WORKER", project.path("worker")))
    };
    for (word, code, label) in [
        ("trainable-once-exported", "untrainable", "`fp32` trains what comes of it"),
        ("calibratable-once-exported", "uncalibratable", "`ranges` calibrates what comes of it"),
        ("feedable", "unfeedable", "`plain` feeds images to what comes of it"),
    ] {
        let said = check(word);
        assert_eq!(said.code, Some(2), "{word}: {said:?}");
        for part in [&format!("qpipe::config::{code}"), "p.toml:8:18", label] {
            assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
        }
    }
    // What the file itself is, is another question.
    assert_eq!(check("trainable").code, Some(0));
    let asked = format!(
        "model trainable-once-exported {0} calibratable-once-exported {0} feedable {0}\n",
        file.display()
    );
    assert_eq!(project.read("asked"), asked.repeat(4));
}
