//! The kernels of Q/DQ pairs, and which of their scales training changes.

use super::compile::Compiler;
use super::parameters::origin;
use super::program::{Followed, Scales, Source};
use crate::graph::Node;
use crate::ops::{FakeQuantize, Kernel};
use crate::{Error, Result};

impl<'a> Compiler<'a> {
    /// What runs a pair, and where its scale is if it is an input.
    pub(super) fn scaled(
        &mut self,
        quantize: &'a Node,
        fake: &FakeQuantize,
    ) -> Result<(Kernel, Option<Source>)> {
        let (device, fake) = (self.options.device, fake.clone());
        let missing = |index| Error::user(format!("input {index} is missing"));
        let value = quantize.input(0).ok_or_else(|| missing(0))?;
        let scale = quantize.input(1).ok_or_else(|| missing(1))?;
        let weight = || {
            let producers = self.graph.producers();
            self.constants.contains_key(origin(self.graph, &producers, value))
        };
        match self.options.scales {
            Scales::Learned => {
                let kernel = fake.learned_kernel(device, weight())?;
                self.learned.insert(scale);
                Ok((kernel, Some(self.source(scale)?)))
            }
            Scales::Followed if !weight() => {
                let levels = fake.levels().ok_or_else(|| {
                    Error::user("its range is not symmetric around zero, nor does it begin there: its scale cannot follow the largest magnitude")
                        .help("quantize with the zero point 0, or 128 of uint8, or leave the scales as they are: scales = \"frozen\"")
                })?;
                let kernel = fake.followed_kernel(device)?;
                let source = self.source(scale)?;
                if let Source::Constant(index) = source {
                    if !self.program.statistics.contains(&index) {
                        self.program.statistics.push(index);
                    }
                    self.program.followed.push(Followed {
                        value: value.to_owned(),
                        name: scale.to_owned(),
                        scale: self.program.constants[index].tensor.shallow_clone(),
                        levels,
                    });
                }
                Ok((kernel, Some(source)))
            }
            Scales::Frozen | Scales::Followed => Ok((fake.kernel(device)?, None)),
        }
    }
}
