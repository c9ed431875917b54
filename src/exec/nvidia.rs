//! GPUs as their driver tells them: `nvidia-smi --query-gpu=… --format=csv,noheader,nounits`, and `nvidia-smi -L` for parts of them (MIG).

use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::answer;

/// A GPU, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Profile of the part of it that is used, such as `3g.40gb`; `None`: the whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<String>,
    /// Its compute capability, such as `9.0`; `None`: an old driver does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<String>,
    /// Version of its driver, such as `550.54.15`.
    pub driver: String,
    /// The driver's id of the card, `GPU-…`: which of several, not what it is.
    #[serde(skip)]
    pub id: String,
}

/// How fast and how hot a GPU is at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Clock of its multiprocessors.
    pub sm_clock_mhz: f64,
    /// Temperature of its chip.
    pub temperature_c: f64,
}

/// It answers within a second or so; on a machine with many GPUs and no daemon that keeps them awake within ten.
const PATIENCE: Duration = Duration::from_secs(30);

/// The variable by which CUDA is told which GPUs to use, in which order.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The variable by which CUDA is told how to number GPUs. By default the fastest is its first, which is none of the driver's orders.
pub const ORDER: &str = "CUDA_DEVICE_ORDER";

/// The value of [`ORDER`] by which CUDA numbers GPUs as the driver does.
pub const BY_BUS: &str = "PCI_BUS_ID";

/// The GPUs that CUDA uses where [`VISIBLE`] is `names`, in its order: that of the names, else that of the PCI bus. None where there is no driver.
///
/// # Errors
/// `nvidia-smi` does not answer.
pub fn gpus(names: Option<&str>) -> Result<Vec<Gpu>, String> {
    let (cards, parts) = all(names.is_some_and(|names| names.contains("MIG-")))?;
    Ok(select(&cards, &parts, names).into_iter().map(|found| found.gpu).collect())
}

/// What the driver knows of names of GPUs.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What each name stands for, for itself; `None`: for nothing that is there.
    pub each: Vec<Option<Found>>,
    /// All cards, as `0 (NVIDIA A100-SXM4-40GB)`; empty where there is no driver that tells.
    pub there: Vec<String>,
}

/// A GPU, or a part of one, that a name stands for.
#[derive(Clone, Debug)]
pub struct Found {
    /// The driver's id of just that, `GPU-…` or `MIG-…`, whatever the name was.
    pub id: String,
    /// What it is.
    pub gpu: Gpu,
}

/// What the driver knows of each of these names.
///
/// # Errors
/// As above.
pub fn known(names: &[String]) -> Result<Known, String> {
    let (cards, parts) = all(names.iter().any(|name| name.contains("MIG-")))?;
    let there = cards.iter().map(|card| format!("{} ({})", card.index, card.gpu.name)).collect();
    Ok(Known { each: each(&cards, &parts, names), there })
}

fn each(cards: &[Card], parts: &[Part], names: &[String]) -> Vec<Option<Found>> {
    names.iter().map(|name| select(cards, parts, Some(name)).pop()).collect()
}

/// All cards, and their parts where a card is split or `split` asks for them.
fn all(split: bool) -> Result<(Vec<Card>, Vec<Part>), String> {
    // Drivers before 2021 do not know the compute capability, those before 2020 no MIG.
    for more in [",compute_cap,mig.mode.current", ",compute_cap", ""] {
        let fields = format!("--query-gpu=index,uuid,name,driver_version{more}");
        let Some(text) = ask(&fields, None)? else { continue };
        let cards = cards(&text);
        let split = split || cards.iter().any(|card| card.split);
        let parts = if split { ask("-L", None)?.unwrap_or_default() } else { String::new() };
        return Ok((cards, parts_of(&parts)));
    }
    Ok((Vec::new(), Vec::new()))
}

/// The state of a GPU at this moment.
pub fn state(gpu: &Gpu) -> Option<State> {
    state_of(&ask("--query-gpu=clocks.sm,temperature.gpu", Some(&gpu.id)).ok()??)
}

impl Gpu {
    /// The driver's branch, `550` of `550.54.15`: what TensorRT's kernels depend on.
    pub fn branch(&self) -> &str {
        self.driver.split('.').next().unwrap_or(&self.driver)
    }

    /// Its name, with the profile of the part that is used: `NVIDIA A100-SXM4-40GB MIG 3g.20gb`.
    pub fn model(&self) -> String {
        match &self.mig {
            Some(profile) => format!("{} MIG {profile}", self.name),
            None => self.name.clone(),
        }
    }

    /// In words: `NVIDIA H100 80GB HBM3 (compute 9.0, driver 550)`. GPUs of the same words are of one kind.
    pub fn words(&self) -> String {
        let compute = self.compute_capability.as_deref().unwrap_or("unknown");
        format!("{} (compute {compute}, driver {})", self.model(), self.branch())
    }
}

/// What it prints; `None` where it is not there or refuses.
fn ask(what: &str, gpu: Option<&str>) -> Result<Option<String>, String> {
    let mut command = Command::new("nvidia-smi");
    command.arg(what);
    if what != "-L" {
        command.arg("--format=csv,noheader,nounits");
    }
    if let Some(gpu) = gpu {
        command.args(["-i", gpu]);
    }
    let Ok(said) = answer::of(command, PATIENCE) else { return Ok(None) };
    match said.status {
        None => Err(format!("nvidia-smi {}: NVIDIA's driver may hang", said.ending)),
        Some(status) => {
            Ok(status.success().then(|| String::from_utf8_lossy(&said.output).into_owned()))
        }
    }
}

/// A card of this machine.
struct Card {
    index: String,
    gpu: Gpu,
    /// Whether it is used in parts only.
    split: bool,
}

/// A part of a card.
struct Part {
    /// The card's id.
    of: String,
    profile: String,
    id: String,
}

fn cards(text: &str) -> Vec<Card> {
    let card = |line: &str| {
        let mut fields = line.split(',').map(|field| field.trim().to_owned());
        let (index, id, name, driver) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let compute_capability = fields.next().filter(|value| !value.starts_with('['));
        let split = fields.next().is_some_and(|mode| mode == "Enabled");
        Some(Card { index, gpu: Gpu { name, mig: None, compute_capability, driver, id }, split })
    };
    text.lines().filter_map(card).collect()
}

/// Of `nvidia-smi -L`: `GPU 0: NAME (UUID: GPU-…)`, and below it `  MIG 3g.20gb     Device  0: (UUID: MIG-…)`.
fn parts_of(text: &str) -> Vec<Part> {
    let (mut of, mut parts) = (String::new(), Vec::new());
    for line in text.lines() {
        let Some((front, id)) = line.trim().rsplit_once("(UUID: ") else { continue };
        let id = id.trim_end_matches(')').to_owned();
        match front.strip_prefix("MIG ").and_then(|rest| rest.split_whitespace().next()) {
            Some(profile) => {
                parts.push(Part { of: of.clone(), profile: profile.to_owned(), id });
            }
            None => of = id,
        }
    }
    parts
}

/// The GPUs that CUDA finds by their names: numbers, or beginnings of ids. It leaves out a name that it does not know, and all behind that.
fn select(cards: &[Card], parts: &[Part], names: Option<&str>) -> Vec<Found> {
    let part = |card: &Card, profile: &str, id: &str| Found {
        id: id.to_owned(),
        gpu: Gpu { mig: Some(profile.to_owned()), ..card.gpu.clone() },
    };
    // Of a card that is split CUDA takes the first part, unless one is named.
    let whole = |card: &Card| {
        let first = parts.iter().find(|part| card.split && part.of == card.gpu.id);
        match first {
            Some(first) => part(card, &first.profile, &first.id),
            None => Found { id: card.gpu.id.clone(), gpu: card.gpu.clone() },
        }
    };
    let Some(names) = names else { return cards.iter().map(whole).collect() };
    let named = |name: &str| {
        if let Some(of) = name.strip_prefix("MIG-") {
            if let Some(found) = parts.iter().find(|part| part.id.starts_with(name)) {
                let card = cards.iter().find(|card| card.gpu.id == found.of)?;
                return Some(part(card, &found.profile, &found.id));
            }
            // As drivers before 470 name it: the card, and numbers in it.
            let (of, numbers) = of.split_once('/')?;
            let card = cards.iter().find(|card| card.gpu.id == of)?;
            return Some(part(card, numbers, name));
        }
        let by_id = |card: &&Card| name.starts_with("GPU-") && card.gpu.id.starts_with(name);
        cards.iter().find(|card| card.index == name || by_id(card)).map(whole)
    };
    names.split(',').map_while(|name| named(name.trim())).collect()
}

fn state_of(text: &str) -> Option<State> {
    let mut numbers = text.lines().next()?.split(',').map(|field| field.trim().parse().ok());
    Some(State { sm_clock_mhz: numbers.next()??, temperature_c: numbers.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARDS: &str = "0, GPU-a1, NVIDIA A100-SXM4-40GB, 550.54.15, 8.0, Enabled\n\
                         1, GPU-b2, Tesla T4, 550.54.15, 7.5, [N/A]\n";

    const PARTS: &str = "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-a1)\n  \
                         MIG 3g.20gb     Device  0: (UUID: MIG-c3)\n  \
                         MIG 1g.5gb      Device  1: (UUID: MIG-d4)\nGPU 1: Tesla T4 (UUID: GPU-b2)\n";

    #[test]
    fn what_the_driver_tells() {
        let cards = cards(
            "0, GPU-a, NVIDIA H100 80GB HBM3, 550.54.15, 9.0, Disabled\n1, GPU-b, Tesla P4, 390.1, [N/A]\n",
        );
        let gpus = select(&cards, &[], None);
        assert_eq!(gpus[0].gpu.words(), "NVIDIA H100 80GB HBM3 (compute 9.0, driver 550)");
        assert_eq!((&gpus[1].gpu.compute_capability, &gpus[1].gpu.mig), (&None, &None));
        assert_eq!(
            state_of("1980, 34\n"),
            Some(State { sm_clock_mhz: 1980.0, temperature_c: 34.0 })
        );
        assert_eq!(state_of("[N/A], 34\n"), None);
    }

    #[test]
    fn gpus_are_named_as_cuda_names_them() {
        let (cards, parts) = (cards(CARDS), parts_of(PARTS));
        let models = |names: Option<&str>| -> Vec<String> {
            select(&cards, &parts, names).iter().map(|found| found.gpu.model()).collect()
        };
        let (large, small) =
            ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA A100-SXM4-40GB MIG 1g.5gb");
        for (names, found) in [
            (None, vec![large, "Tesla T4"]),
            (Some("1,0"), vec!["Tesla T4", large]),
            (Some("GPU-b"), vec!["Tesla T4"]),
            (Some("MIG-c3"), vec![large]),
            (Some("MIG-d4"), vec![small]),
            (Some("MIG-GPU-a1/1/0"), vec!["NVIDIA A100-SXM4-40GB MIG 1/0"]),
            (Some("1,-1,0"), vec!["Tesla T4"]),
            (Some("7,1"), vec![]),
            (Some(""), vec![]),
        ] {
            assert_eq!(models(names), found, "{names:?}");
        }
        let names = ["0", "GPU-a", "MIG-c3", "MIG-d4", "1", "GPU-b2", "7"].map(str::to_owned);
        let ids: Vec<Option<String>> =
            each(&cards, &parts, &names).into_iter().map(|found| Some(found?.id)).collect();
        let [first, second, card] = ["MIG-c3", "MIG-d4", "GPU-b2"].map(|id| Some(id.to_owned()));
        assert_eq!(ids, [&first, &first, &first, &second, &card, &card, &None].map(Clone::clone));
    }
}
