//! Key `device`: where libtorch computes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::contract::{Fact, Problem};

/// Where libtorch computes: `auto`, `cpu` or `cuda:N`.
///
/// Bits differ between devices, so a device that is named is part of the cache key. `auto` is not: the GPU that it finds is a fact of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Device(pub String);

impl Default for Device {
    fn default() -> Self {
        Self("auto".to_owned())
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // One key for two spellings.
        serializer.serialize_str(if self.0 == "cuda" { "cuda:0" } else { &self.0 })
    }
}

impl Device {
    /// Whether the machine decides.
    pub fn is_auto(&self) -> bool {
        self.0 == "auto"
    }

    /// The fact of the machine that results depend on.
    pub fn fact(&self) -> Fact {
        match self.0.as_str() {
            "auto" => Fact::Libtorch,
            "cpu" => Fact::LibtorchCpu,
            _ => Fact::LibtorchCuda,
        }
    }

    /// A word that names no device.
    pub fn check(&self) -> Option<Problem> {
        let number =
            |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        let known = ["auto", "cpu", "cuda"].contains(&self.0.as_str())
            || self.0.strip_prefix("cuda:").is_some_and(|rest| number(rest) && rest.len() < 4);
        (!known).then(|| {
            Problem::at("device", format!("\"{}\" is no device", self.0))
                .label("expected \"auto\", \"cpu\" or \"cuda:N\"")
                .help("\"cuda:0\" is the first GPU that the stage may use, \"auto\" the same where there is one, else the CPU")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_one_spelling_in_keys_and_others_are_refused() {
        let device = |word: &str| Device(word.to_owned());
        for word in ["auto", "cpu", "cuda", "cuda:0", "cuda:15"] {
            assert_eq!(device(word).check(), None, "{word}");
        }
        for word in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:12345", "CPU", "mps"]
        {
            assert!(device(word).check().is_some(), "{word}");
        }
        assert_eq!(serde_json::to_value(device("cuda")).unwrap(), "cuda:0");
        assert_eq!(device("cpu").fact(), Fact::LibtorchCpu);
        assert_eq!(device("cuda:1").fact(), Fact::LibtorchCuda);
        assert_eq!(Device::default().fact(), Fact::Libtorch);
    }
}
