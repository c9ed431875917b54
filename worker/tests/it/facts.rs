//! What cache keys hold of TensorRT and the GPU that it uses, so that an engine or a figure is never taken for that of another card.

use serde_json::{Value, json};

use crate::trtexec::Machine;

fn printed(machine: &Machine, names: &[&str]) -> Value {
    let arguments = [&["facts"], names].concat();
    let output = machine.worker(&arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fact(machine: &Machine) -> Value {
    printed(machine, &["tensor-rt"])["facts"]["tensor-rt"].clone()
}

#[test]
fn the_fact_names_version_card_and_driver_branch() {
    let machine = Machine::new("ok");
    assert_eq!(fact(&machine), "8.5.3 on NVIDIA H100 80GB HBM3 (compute 9.0, driver 550)");
    let mut other = Machine::new("ok");
    other.set("FAKE_DRIVER", "535.1");
    other.set("FAKE_TRTEXEC_VERSION", "100300");
    assert_eq!(fact(&other), "10.3.0 on NVIDIA H100 80GB HBM3 (compute 9.0, driver 535)");
    other.set("TRTEXEC", "/nowhere/trtexec");
    let printed = printed(&other, &["tensor-rt", "libtorch-cpu"]);
    assert!(printed["facts"]["libtorch-cpu"].is_string(), "{printed}");
    let missing = &printed["missing"]["tensor-rt"];
    assert_eq!(missing["message"], "TRTEXEC=/nowhere/trtexec: expected the program trtexec");
    assert!(missing["help"].as_str().unwrap().contains("TENSORRT_DIR"), "{printed}");
}

/// Of several cards it is the first that the stage sees, and so it is in the engine's own figures.
#[test]
fn of_several_cards_the_one_that_is_used_is_named() {
    let (large, small) =
        ("NVIDIA A100-PCIE-40GB (compute 8.0, driver 550)", "Tesla T4 (compute 7.5, driver 550)");
    for (visible, expected) in [
        (None, Some(large)),
        (Some("0,1"), Some(large)),
        (Some("1,0"), Some(small)),
        (Some("1"), Some(small)),
        (Some("GPU-1"), Some(small)),
        (Some("7"), None),
        (Some(""), None),
    ] {
        let mut machine = Machine::new("ok");
        machine.set("FAKE_GPUS", "NVIDIA A100-PCIE-40GB, 8.0, Disabled\nTesla T4, 7.5, [N/A]");
        if let Some(visible) = visible {
            machine.set("CUDA_VISIBLE_DEVICES", visible);
        }
        let told = expected.map(|card| format!("8.5.3 on {card}"));
        assert_eq!(fact(&machine), json!(told), "{visible:?}");
        let built = machine.build("engine", "fixed.onnx", json!({}));
        assert_eq!(
            built.metrics.get("gpu"),
            expected.map(|card| json!(card)).as_ref(),
            "{built:?}"
        );
        assert_eq!(built.failure.is_some(), expected.is_none(), "{built:?}");
    }
}

/// Parts of a card compute at other speeds: each has its own key and its own timing cache.
#[test]
fn the_part_of_a_split_card_is_named() {
    let mut machine = Machine::new("ok");
    machine.set("FAKE_GPUS", "NVIDIA A100-SXM4-40GB, 8.0, Enabled");
    let parts = [("MIG-aaaa", "3g.20gb"), ("MIG-bbbb", "1g.5gb")];
    let line =
        |(id, profile): (&str, &str)| format!("\n  MIG {profile}     Device  0: (UUID: {id})");
    let listed = format!("GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0){}", parts.map(line).concat());
    machine.set("FAKE_PARTS", &listed);
    for (id, profile) in parts {
        machine.set("CUDA_VISIBLE_DEVICES", id);
        let card = format!("NVIDIA A100-SXM4-40GB MIG {profile} (compute 8.0, driver 550)");
        assert_eq!(fact(&machine), format!("8.5.3 on {card}"));
        let built = machine.build(id, "fixed.onnx", json!({}));
        assert_eq!(built.metrics["gpu"], card, "{built:?}");
        assert_eq!(built.metrics["timing_cache"], "new", "{built:?}");
    }
    // Without a name CUDA takes the first.
    machine.set("CUDA_VISIBLE_DEVICES", "0");
    assert!(fact(&machine).as_str().unwrap().contains("MIG 3g.20gb"));
}

/// Without a GPU the one that is named is told, by its own number.
#[test]
fn a_gpu_of_libtorch_is_asked_for_by_its_number() {
    let mut machine = Machine::new("ok");
    machine.set("CUDA_VISIBLE_DEVICES", "");
    let printed = printed(&machine, &["libtorch-cuda", "libtorch-cuda:1"]);
    let message = |name: &str| printed["missing"][name]["message"].as_str().unwrap().to_owned();
    assert!(
        message("libtorch-cuda").starts_with("`device` asks for a GPU, and libtorch finds none")
    );
    assert!(
        message("libtorch-cuda:1").starts_with("`device` asks for a GPU, and libtorch finds none")
    );
}
