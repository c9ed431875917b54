//! The GPU as its driver tells it: `nvidia-smi --query-gpu=… --format=csv,noheader,nounits`.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its compute capability, such as `9.0`; `None`: an old driver does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<String>,
    /// Version of its driver, such as `550.54.15`.
    pub driver: String,
}

/// How fast and how hot a GPU is at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Clock of its multiprocessors.
    pub sm_clock_mhz: f64,
    /// Temperature of its chip.
    pub temperature_c: f64,
}

/// The GPUs that this process may use (`CUDA_VISIBLE_DEVICES`), in the driver's order; none where there is no driver.
pub fn visible() -> Vec<Gpu> {
    // Drivers before 2021 do not know the compute capability.
    let text = query("name,driver_version,compute_cap").or_else(|| query("name,driver_version"));
    text.map(|text| gpus_of(&text)).unwrap_or_default()
}

/// The state of the first GPU that this process may use.
pub fn state() -> Option<State> {
    state_of(&query("clocks.sm,temperature.gpu")?)
}

impl Gpu {
    /// The driver's branch, `550` of `550.54.15`: what TensorRT's kernels depend on.
    pub fn branch(&self) -> &str {
        self.driver.split('.').next().unwrap_or(&self.driver)
    }

    /// In words: `NVIDIA H100 80GB HBM3 (compute 9.0, driver 550)`.
    pub fn words(&self) -> String {
        let compute = self.compute_capability.as_deref().unwrap_or("unknown");
        format!("{} (compute {compute}, driver {})", self.name, self.branch())
    }
}

fn query(fields: &str) -> Option<String> {
    let mut command = Command::new("nvidia-smi");
    command.arg(format!("--query-gpu={fields}")).arg("--format=csv,noheader,nounits");
    // It takes the same numbers and ids, where the order is that of the PCI bus, as we set it for trtexec.
    let chosen = std::env::var("CUDA_VISIBLE_DEVICES").ok().map(|names| names.trim().to_owned());
    match chosen.as_deref() {
        Some("" | "-1") => return None,
        // An id of a part of a GPU (MIG) is none of nvidia-smi's.
        Some(names) if !names.contains("MIG") => {
            command.arg("-i").arg(names);
        }
        _ => {}
    }
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn gpus_of(text: &str) -> Vec<Gpu> {
    let gpu = |line: &str| {
        let mut fields = line.split(',').map(|field| field.trim().to_owned());
        let (name, driver) = (fields.next()?, fields.next()?);
        let compute_capability = fields.next().filter(|value| !value.starts_with('['));
        Some(Gpu { name, compute_capability, driver })
    };
    text.lines().filter_map(gpu).collect()
}

fn state_of(text: &str) -> Option<State> {
    let mut numbers = text.lines().next()?.split(',').map(|field| field.trim().parse().ok());
    Some(State { sm_clock_mhz: numbers.next()??, temperature_c: numbers.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_tells() {
        let gpus = gpus_of("NVIDIA H100 80GB HBM3, 550.54.15, 9.0\nTesla P4, 390.1, [N/A]\n");
        assert_eq!(gpus[0].words(), "NVIDIA H100 80GB HBM3 (compute 9.0, driver 550)");
        assert_eq!(gpus[1].compute_capability, None);
        assert_eq!(
            state_of("1980, 34\n"),
            Some(State { sm_clock_mhz: 1980.0, temperature_c: 34.0 })
        );
        assert_eq!(state_of("[N/A], 34\n"), None);
        assert!(gpus_of("").is_empty());
    }
}
