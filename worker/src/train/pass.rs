//! A batch's pass through the network and back: its gradients, its loss and its hits.

use tch::{Kind, Tensor};

use super::averages::Follower;
use super::classifier::Classifier;
use super::distillation::Teacher;
use super::fit::Fit;
use super::scaler::Scaler;
use crate::Result;
use crate::interp::Mode;
use crate::torch::Autocast;

/// What takes part in a pass besides the network.
pub(super) struct PassContext<'a> {
    pub teacher: Option<&'a mut Teacher>,
    pub follower: Option<Follower>,
    pub scaler: Option<Scaler>,
    /// Of the classes in the loss, where the network runs.
    pub class_weights: Option<Tensor>,
}

/// What comes of a pass, where the network runs.
pub(super) struct Pass {
    /// Of the batch's mean loss, times the scaler's factor; one for each parameter, undefined where the loss does not depend on it.
    pub gradients: Vec<Tensor>,
    /// The mean loss and the count of hits, two doubles.
    pub loss_and_hits: Tensor,
}

impl Fit<'_> {
    /// Of float `images` of `[N, C, H, W]` and their int64 `labels` of `[N]`, both where the network runs. It does not wait for a GPU, unless
    /// an operator does.
    pub(super) fn pass(
        &self,
        classifier: &mut Classifier,
        context: &mut PassContext,
        images: &Tensor,
        labels: &Tensor,
    ) -> Result<Pass> {
        let compared = context.teacher.as_ref().map_or(0, |teacher| teacher.layers.len());
        let mut features: Vec<Option<Tensor>> = (0..compared).map(|_| None).collect();
        let follower = &mut context.follower;
        let mut watch = |index: usize, value: &Tensor| -> Result<()> {
            match (features.get_mut(index), follower.as_mut()) {
                (Some(feature), _) => *feature = Some(value.shallow_clone()),
                (None, Some(follower)) => follower.see(&self.watched[index], value)?,
                (None, None) => {}
            }
            Ok(())
        };
        let logits = {
            let device = classifier.program.device();
            let _mixed = self.amp.map(|half| Autocast::begin(device, half)).transpose()?;
            let images = [images.shallow_clone()];
            classifier.program.forward(&images, Mode::Train, &mut watch)?.remove(0)
        };
        let logits = if self.amp.is_some() { logits.f_to_kind(Kind::Float)? } else { logits };
        let mut loss = logits.f_cross_entropy_loss::<Tensor>(
            labels,
            context.class_weights.as_ref().map(Tensor::shallow_clone),
            tch::Reduction::Mean,
            -100,
            self.label_smoothing,
        )?;
        if let Some(teacher) = &mut context.teacher {
            let own = teacher.loss(images, &logits, &features)?;
            loss = loss.f_mul_scalar(teacher.settings.labels)?.f_add(&own)?;
        }
        let scaled = match &context.scaler {
            Some(scaler) => scaler.scaled(&loss)?,
            None => loss.shallow_clone(),
        };
        let gradients = classifier.program.gradients(&scaled)?;
        let hits = logits.f_detach()?.f_argmax(1, false)?.f_eq_tensor(labels)?;
        let double = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(Kind::Double)?.f_reshape([1]);
        let loss_and_hits =
            Tensor::f_cat(&[double(&loss)?, double(&hits.f_sum(Kind::Int64)?)?], 0)?;
        Ok(Pass { gradients, loss_and_hits })
    }
}
