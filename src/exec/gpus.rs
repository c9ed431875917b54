//! Which GPUs a stage sees: asked for its key and given to its process from here, so that the key is that of the GPU that is used.
//!
//! A stage with `resources.gpus` is given so many GPUs of the run, with 0 none; any other sees all of them. Which ones it is given is known only when it
//! starts, its key before. So what is given to stages are the GPUs of the first one's kind: whichever of them it is, the key is right.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::{Options, host, nvidia};
use crate::config::StageCell;
use crate::plan::Plan;
use crate::stages::contract::Fact;
use crate::stages::device::Device;

/// The GPUs of a run.
#[derive(Debug)]
pub struct Gpus {
    /// All of them, as `CUDA_VISIBLE_DEVICES` takes them.
    names: Vec<String>,
    /// Whether the run was told to use these; else the environment says it to its stages too.
    told: bool,
    /// Whether a stage is given some of them.
    given: bool,
    /// What the driver knows of the names, once it was asked.
    known: OnceCell<nvidia::Known>,
    shared: OnceCell<Shared>,
}

/// The GPUs that are given to stages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Their names: those of the first one's kind.
    pub names: Vec<String>,
    /// What the first is, where others are of another kind.
    pub kind: String,
    /// The others: name, and what it is.
    pub others: Vec<(String, String)>,
}

/// Who asks for a fact of a GPU: what the stage sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct View {
    /// What stands in `CUDA_VISIBLE_DEVICES` for it; `None`: what stands there for this process.
    pub visible: Option<String>,
    /// Number of the GPU that it names, of those that it sees.
    pub gpu: usize,
}

impl Gpus {
    /// Those that a run of `plan` may use.
    pub fn of(options: &Options, plan: &Plan) -> Self {
        let given = plan.order().any(|index| gpus_given(plan.stage(index)) > Some(0));
        Self::new(options.gpus.as_deref(), given)
    }

    fn new(told: Option<&[String]>, given: bool) -> Self {
        let named = |names: &[String]| {
            let names = names.iter().map(|name| name.trim().to_owned());
            names.filter(|name| !name.is_empty()).collect()
        };
        let mut names: Vec<String> = told.map_or_else(host::gpus, named);
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let told = told.is_some();
        let mut gpus = Self { names, told, given, known: OnceCell::new(), shared: OnceCell::new() };
        // Two numbers are two cards; of names of several forms only the driver knows.
        let number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
        if (told || given) && gpus.names.len() > 1 && !gpus.names.iter().all(number) {
            gpus.leave_out_other_names();
        }
        gpus
    }

    /// Leaves out names of GPUs that have another name before.
    fn leave_out_other_names(&mut self) {
        let known = self.known().clone();
        if known.each.is_empty() {
            return;
        }
        let mut seen = BTreeSet::new();
        let named = std::mem::take(&mut self.names).into_iter().zip(known.each);
        let (names, each) = named
            .filter(|(_, found)| found.as_ref().is_none_or(|found| seen.insert(found.id.clone())))
            .unzip();
        self.names = names;
        self.known = OnceCell::from(nvidia::Known { each, ..known });
    }

    /// What the driver knows of the names; nothing where there is none, or where its facts cannot be told either.
    fn known(&self) -> &nvidia::Known {
        self.known.get_or_init(|| nvidia::known(&self.names).unwrap_or_default())
    }

    /// A GPU that the run was told to use and that is not there, with those that are.
    pub fn missing(&self) -> Option<(&str, String)> {
        if !self.told || self.known().there.is_empty() {
            return None;
        }
        let place = self.known().each.iter().position(Option::is_none)?;
        Some((&self.names[place], self.known().there.join(", ")))
    }

    /// Those that are given to stages with `resources.gpus`.
    pub fn shared(&self) -> &Shared {
        self.shared.get_or_init(|| {
            // The driver is asked where it matters only.
            if self.given && self.names.len() > 1 {
                self.of_one_kind()
            } else {
                Shared { names: self.names.clone(), ..Shared::default() }
            }
        })
    }

    /// The driver's ids of those that are given to stages, by name: whatever another run calls them, they are the same.
    pub fn ids(&self) -> BTreeMap<String, String> {
        let each = self.names.iter().zip(&self.known().each);
        each.filter_map(|(name, found)| Some((name.clone(), found.as_ref()?.id.clone()))).collect()
    }

    fn of_one_kind(&self) -> Shared {
        // Of what the driver does not tell all is one kind.
        let gpus = &self.known().each;
        let kind = |place: usize| {
            let found = gpus.get(place).and_then(Option::as_ref);
            found.map_or_else(|| UNKNOWN.to_owned(), |found| found.gpu.words())
        };
        let kinds: Vec<String> = (0..self.names.len()).map(kind).collect();
        let mut shared = Shared { kind: kinds[0].clone(), ..Shared::default() };
        for (name, kind) in self.names.iter().zip(kinds) {
            if kind == shared.kind {
                shared.names.push(name.clone());
            } else {
                shared.others.push((name.clone(), kind));
            }
        }
        shared
    }

    /// What a stage's key is asked for.
    pub fn view(&self, cell: &StageCell) -> View {
        let visible = match gpus_given(cell) {
            None => self.all(),
            Some(0) => Some(String::new()),
            Some(1) => self.names.first().cloned(),
            // Where there are fewer it cannot run; an earlier result may still serve.
            Some(count) => {
                let names = self.shared().names.get(..count);
                names.map_or_else(|| self.all(), |names| Some(names.join(",")))
            }
        };
        let names_one = cell.facts.contains(&Fact::LibtorchCuda);
        let device = names_one.then(|| Device::of(&cell.stage.config())).flatten();
        View { visible, gpu: device.and_then(|device| device.gpu()).unwrap_or(0) }
    }

    /// All GPUs of the run, where it was told which.
    fn all(&self) -> Option<String> {
        self.told.then(|| self.names.join(","))
    }

    /// What a stage's process finds in `CUDA_VISIBLE_DEVICES` that was given the GPUs `given`; `None`: it is left as it is.
    pub fn visible(&self, cell: &StageCell, given: &[String]) -> Option<String> {
        match gpus_given(cell) {
            None => self.all(),
            Some(_) => Some(given.join(",")),
        }
    }
}

const UNKNOWN: &str = "unknown to NVIDIA's driver";

/// Variables of a process that sees these GPUs. Numbers are those of `nvidia-smi`, whatever CUDA's own order is.
pub fn variables(visible: &str) -> [(&'static str, &str); 2] {
    [(nvidia::VISIBLE, visible), (nvidia::ORDER, nvidia::BY_BUS)]
}

/// GPUs that a stage is given; a part of one is one. `None`: its table does not say.
fn gpus_given(cell: &StageCell) -> Option<usize> {
    let given = cell.execution.resources.as_ref()?.gpus?;
    Some(given.ceil() as usize)
}
