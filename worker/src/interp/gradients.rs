//! The backward pass.

use tch::Tensor;

use super::program::Program;
use crate::Result;

impl Program {
    /// Gradients of a loss, a single number that [`Program::forward`]'s outputs led to, by the parameters: one for each of
    /// [`Program::parameters`], undefined where the loss does not depend on it. The graph of the forward pass is freed.
    ///
    /// They are handed out instead of being added to what is at the parameters: that would have to be set to zero before each
    /// step, and both pass over the memory of the whole model. Who accumulates over several steps adds them up.
    /// They must not be changed in place: two parameters may share one.
    ///
    /// # Errors
    /// A loss without gradient; parameters that collect none ([`Program::train`]).
    pub fn gradients(&self, loss: &Tensor) -> Result<Vec<Tensor>> {
        let leaves: Vec<&Tensor> = self.parameters.iter().map(|p| &p.tensor).collect();
        Ok(Tensor::f_run_backward(&[loss], &leaves, false, false)?)
    }
}
