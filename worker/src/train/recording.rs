//! Passes as CUDA graphs. A pass is some hundreds of kernels, which a processor needs longer to launch, one by one, than a fast GPU to run;
//! recorded once, it is launched as a whole.

use tch::{Device, Tensor};

use super::classifier::Classifier;
use super::fit::Fit;
use super::pass::{Pass, PassContext};
use crate::torch::{CudaGraph, copied};
use crate::{Error, Result};

/// How passes are launched.
pub(super) enum Recording {
    /// Kernel by kernel.
    Never,
    /// As a graph, once there is a whole batch to record it with.
    Soon,
    /// As this graph.
    Ready(Recorded),
}

/// A pass that was recorded: it reads a batch here and leaves its results here.
pub(super) struct Recorded {
    images: Tensor,
    labels: Tensor,
    pass: Pass,
    graph: CudaGraph,
}

impl Recording {
    /// Nothing is recorded where there is no GPU.
    pub fn wanted(fit: &Fit, device: Device) -> Self {
        if fit.cuda_graph && device != Device::Cpu { Self::Soon } else { Self::Never }
    }

    /// As [`Fit::pass`]; of a recorded one the gradients are good until the next.
    pub fn pass(
        &mut self,
        fit: &Fit,
        classifier: &mut Classifier,
        context: &mut PassContext,
        [images, labels]: [&Tensor; 2],
    ) -> Result<Pass> {
        // The last batch of an epoch may be a smaller one.
        if let Self::Ready(recorded) = self
            && recorded.images.size() == images.size()
        {
            return recorded.run(images, labels);
        }
        if !matches!(self, Self::Ready(_)) {
            return fit.pass(classifier, context, images, labels);
        }
        // The graph keeps its memory: without it there may be enough. A pass that ends half-way
        // has brought running statistics forward already; a greatest magnitude may be seen twice.
        let before = classifier.program.state()?;
        match fit.pass(classifier, context, images, labels) {
            Err(error) if error.out_of_memory => {
                *self = Self::Never;
                classifier.program.load_state(&before)?;
                fit.pass(classifier, context, images, labels)
            }
            made => made,
        }
    }

    /// Records, where it was to be and `images` are a whole batch; tells whether it could. What cannot be recorded is launched kernel by kernel.
    ///
    /// Weights, moments, running statistics and magnitudes are afterwards what they were; numbers were drawn at random where the network does.
    pub fn begin(
        &mut self,
        fit: &Fit,
        classifier: &mut Classifier,
        context: &mut PassContext,
        [images, labels]: [&Tensor; 2],
    ) -> Result<Option<Result<()>>> {
        if !matches!(self, Self::Soon) || images.size()[0] != fit.batch_size as i64 {
            return Ok(None);
        }
        let before = classifier.program.state()?;
        let recorded = Recorded::of(fit, classifier, context, [images, labels]);
        classifier.program.load_state(&before)?;
        if let Some(follower) = &mut context.follower {
            follower.forget()?;
        }
        let told = recorded.map(|recorded| *self = Self::Ready(recorded));
        if told.is_err() {
            *self = Self::Never;
        }
        Ok(Some(told))
    }
}

impl Recorded {
    fn of(
        fit: &Fit,
        classifier: &mut Classifier,
        context: &mut PassContext,
        [images, labels]: [&Tensor; 2],
    ) -> Result<Self> {
        let (images, labels) = (copied(images)?, copied(labels)?);
        let mut made = None;
        let device = classifier.program.device();
        let graph = CudaGraph::record(device, &mut || {
            made = None;
            made = Some(fit.pass(classifier, context, &images, &labels)?);
            Ok(())
        })?;
        let pass = made.ok_or_else(|| Error::bug("nothing was recorded"))?;
        Ok(Self { images, labels, pass, graph })
    }

    fn run(&mut self, images: &Tensor, labels: &Tensor) -> Result<Pass> {
        self.images.f_copy_(images)?;
        self.labels.f_copy_(labels)?;
        self.graph.replay()?;
        let gradients = self.pass.gradients.iter().map(Tensor::shallow_clone).collect();
        // It is asked for some steps later.
        Ok(Pass { gradients, loss_and_hits: copied(&self.pass.loss_and_hits)? })
    }
}
