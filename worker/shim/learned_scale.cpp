// Fake quantization whose scales have a gradient (LSQ), without waiting for a GPU: libtorch's own (`_fake_quantize_learnable_…`) asks the GPU for
// the scale and the zero point in each call, and writes three results as large as the input where its backward pass needs two numbers.

#include "guarded.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.h>
#include <ATen/ops/fake_quantize_per_channel_affine_cachemask.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

namespace {

struct LearnedScale : torch::autograd::Function<LearnedScale> {
  // `scale` and `zero` are of one dimension, with an element for each position along `axis` of `x`, or one where `axis` is negative.
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, const at::Tensor &scale,
                            const at::Tensor &zero, int64_t axis, int64_t low, int64_t high, double factor) {
    auto [y, inside] = axis < 0 ? at::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
                                      x, scale, zero, at::ones({1}, x.options().dtype(at::kLong)), low, high)
                                : at::fake_quantize_per_channel_affine_cachemask(x, scale, zero, axis, low, high);
    context->save_for_backward({x, y, inside, scale});
    context->saved_data["axis"] = axis;
    context->saved_data["factor"] = factor;
    return y;
  }

  // `y` is `s·round(x/s)` inside of the range and `s` times its end outside, so `s` times the gradient of the scale is `y − x` there and `y` here.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto &x = saved[0], &y = saved[1], &inside = saved[2], &scale = saved[3];
    auto &gradient = gradients[0];
    auto axis = context->saved_data["axis"].toInt();
    std::vector<int64_t> summed;
    for (int64_t i = 0; i < x.dim(); i++)
      if (i != axis) summed.push_back(i);
    auto of_scale = (y - x * inside).mul_(gradient);
    // Of no axis a sum is over all.
    if (!summed.empty() || x.dim() == 0) of_scale = of_scale.sum(summed);
    of_scale = of_scale.reshape_as(scale) / scale * context->saved_data["factor"].toDouble();
    return {gradient * inside, of_scale,     at::Tensor(), at::Tensor(),
            at::Tensor(),      at::Tensor(), at::Tensor()};
  }
};

} // namespace

extern "C" char *qpipe_learned_scale(const at::Tensor *x, const at::Tensor *scale, const at::Tensor *zero, int64_t axis,
                                     int64_t low, int64_t high, double factor, at::Tensor **made) {
  return guarded([&] { *made = new at::Tensor(LearnedScale::apply(*x, *scale, *zero, axis, low, high, factor)); });
}
