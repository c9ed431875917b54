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

    /// Number of the GPU that is named, of those that the stage may use.
    pub fn gpu(&self) -> Option<usize> {
        match self.0.as_str() {
            "cuda" => Some(0),
            word => word.strip_prefix("cuda:")?.parse().ok(),
        }
    }

    /// The device that a stage names, of its configuration.
    pub fn of(config: &serde_json::Value) -> Option<Self> {
        config.get("device")?.as_str().map(|word| Self(word.to_owned()))
    }

    /// A GPU beyond those that the stage is given (`resources = { gpus = … }`; a fraction is one of them), wherever it runs.
    pub fn beyond(&self, given: Option<f64>) -> Option<Problem> {
        let given = given?.ceil() as usize;
        let number = self.gpu().filter(|number| *number >= given)?;
        let message = match given {
            0 => format!("device = \"{}\" asks for a GPU, and the stage is given none", self.0),
            _ => format!(
                "device = \"{}\" is beyond the GPUs that the stage is given: {}",
                self.0,
                names(given)
            ),
        };
        let more = format!(
            "a stage counts its GPUs from 0, whichever they are; `resources = {{ gpus = {} }}` gives it as many",
            number + 1
        );
        Some(
            Problem::at("device", message)
                .label(format!("`resources` gives it {given}"))
                .help(more),
        )
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

/// How many GPUs there are, and their names, for messages.
pub fn there_are(gpus: usize) -> String {
    match gpus {
        0 => "there is none".to_owned(),
        1 => format!("there is one: {}", names(gpus)),
        _ => format!("there are {gpus}: {}", names(gpus)),
    }
}

/// Names of so many GPUs, one at least.
fn names(gpus: usize) -> String {
    match gpus {
        0 | 1 => "cuda:0".to_owned(),
        _ => format!("cuda:0 to cuda:{}", gpus - 1),
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
        assert_eq!(Device::of(&serde_json::json!({"device": "cuda:1"})), Some(device("cuda:1")));
        assert_eq!(Device::of(&serde_json::json!({})), None);
    }

    #[test]
    fn a_gpu_that_is_not_given_is_told() {
        let device = |word: &str| Device(word.to_owned());
        assert_eq!(there_are(1), "there is one: cuda:0");
        assert_eq!(there_are(2), "there are 2: cuda:0 to cuda:1");
        let beyond = |word: &str, given| device(word).beyond(given).is_some();
        assert!(
            beyond("cuda:1", Some(0.5))
                && beyond("cuda:1", Some(1.0))
                && beyond("cuda:2", Some(2.0))
        );
        assert!(!beyond("cuda:1", Some(2.0)) && !beyond("cuda:1", None));
        assert!(!beyond("auto", Some(1.0)) && !beyond("cuda", Some(0.5)));
        assert!(beyond("cuda", Some(0.0)) && !beyond("auto", Some(0.0)));
    }
}
