//! Writes into the program where the libraries are that `make deps` fetched, so that it starts from
//! any folder with no variable set: libtorch's folder as its run path, the folders of those that
//! are opened at run time as constants (see `src/engine/library.rs`). Compiles what tch lacks (`shim/`).

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
        shim(Path::new(&lib));
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

/// The C++ between libtorch and `src/torch/shim.rs`, compiled as tch's own is.
fn shim(lib: &Path) {
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo::rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let root = std::env::var("LIBTORCH_INCLUDE").map(std::path::PathBuf::from);
    let root = root.unwrap_or_else(|_| lib.parent().unwrap_or(lib).to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        // Of a few hundred lines that call into libtorch; unoptimized, its headers take half as long.
        .opt_level(0)
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .flag(format!("-D_GLIBCXX_USE_CXX11_ABI={abi}"))
        .file("shim/all.cpp")
        .compile("qpipe_shim");
}
