//! Writes into the program where the libraries are that `make deps` fetched, so that it starts from
//! any folder with no variable set: libtorch's folder as its run path, the folders of those that
//! are opened at run time as constants (see `src/engine/library.rs`).

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    }
    // Where they will be, whether they are there yet or not: fetching them later needs no new build.
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the worker's parent");
    let deps = project.join(".deps");
    println!(
        "cargo::rustc-env=QPIPE_ONNXRUNTIME_DIR={}",
        deps.join("native/onnxruntime/capi").display()
    );
    println!("cargo::rustc-env=QPIPE_TENSORRT_RTX_DIR={}", deps.join("tensorrt-rtx").display());
}
