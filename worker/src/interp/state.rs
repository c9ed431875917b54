//! What training changes: copied out for checkpoints, put back, and written into the model.

use std::collections::HashMap;

use tch::Tensor;

use super::program::Program;
use crate::graph::{Attribute, Model};
use crate::{Error, Result, torch};

impl Program {
    fn mutable(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let parameters = self.parameters.iter().map(|p| (p.name.as_str(), &p.tensor));
        let statistics = self.statistics.iter().map(|&index| &self.constants[index]);
        parameters.chain(statistics.map(|c| (c.name.as_str(), &c.tensor)))
    }

    /// All that training changes, by name, where the program runs: parameters, then running statistics.
    pub fn changing(&self) -> Result<Vec<(String, Tensor)>> {
        self.mutable().map(|(name, tensor)| Ok((name.to_owned(), tensor.f_detach()?))).collect()
    }

    /// Copies of all that training changes, on the CPU, as [`Program::changing`].
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        self.mutable()
            .map(|(name, tensor)| {
                let copy = tensor.f_detach()?.f_detach_copy()?;
                Ok((name.to_owned(), copy.f_to_device(tch::Device::Cpu)?.f_contiguous()?))
            })
            .collect()
    }

    /// Puts a [`Program::state`] back, in place.
    ///
    /// # Errors
    /// A name that is missing, a shape that differs.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let state: HashMap<&str, &Tensor> = state.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let _no_grad = tch::no_grad_guard();
        for (name, tensor) in self.mutable() {
            let saved = state.get(name).ok_or_else(|| {
                Error::user(format!("the checkpoint has no `{name}`"))
                    .help("it belongs to another model")
            })?;
            if saved.size() != tensor.size() {
                return Err(Error::user(format!(
                    "`{name}` is {:?} in the checkpoint and {:?} in the model",
                    saved.size(),
                    tensor.size()
                ))
                .help("it belongs to another model"));
            }
            tensor.shallow_clone().f_copy_(saved)?;
        }
        Ok(())
    }

    /// Writes parameters and running statistics into the model that this was compiled from.
    ///
    /// # Errors
    /// A model that does not have them.
    pub fn write_back(&self, model: &mut Model) -> Result<()> {
        for (name, tensor) in self.mutable() {
            let data = torch::tensor_data(tensor)?;
            if let Some(initializer) = model.graph.initializers.get_mut(name) {
                *initializer = data;
                continue;
            }
            let constant = |node: &&mut crate::graph::Node| {
                node.op_type == "Constant" && node.outputs.first().is_some_and(|o| o == name)
            };
            let node = model.graph.nodes.iter_mut().find(constant).ok_or_else(|| {
                Error::bug(format!("the model has no initializer `{name}` to write back"))
            })?;
            node.attributes.clear();
            node.attributes.insert("value".to_owned(), Attribute::Tensor(data));
        }
        Ok(())
    }
}
