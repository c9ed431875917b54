// Fake quantization whose scales have a gradient (LSQ), without waiting for a GPU: libtorch's own (`_fake_quantize_learnable_…`) asks the GPU for
// the scale and the zero point in each call, and writes three results as large as the input where its backward pass needs two numbers.

#include "guarded.hpp"
#include "jiterator.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.h>
#include <ATen/ops/fake_quantize_per_channel_affine_cachemask.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <vector>

namespace {

// All axes of a tensor of `dims` but one; a sum over none is over all.
std::vector<int64_t> axes_but(int64_t dims, int64_t axis) {
  std::vector<int64_t> others;
  for (int64_t i = 0; i < dims; i++)
    if (i != axis) others.push_back(i);
  return others;
}

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
    auto summed = axes_but(x.dim(), axis);
    auto of_scale = (y - x * inside).mul_(gradient);
    if (!summed.empty() || x.dim() == 0) of_scale = of_scale.sum(summed);
    of_scale = of_scale.reshape_as(scale) / scale * context->saved_data["factor"].toDouble();
    return {gradient * inside, of_scale,     at::Tensor(), at::Tensor(),
            at::Tensor(),      at::Tensor(), at::Tensor()};
  }
};

// The same in one kernel each way and a sum for the scale's gradient, in the type of `x`: nothing but `x` is kept for the backward pass. A kernel's tensors
// are promoted to one type and broadcast, either of which makes it several times as slow; so a single scale comes as its address.
const std::string SINGLE = R"(
template <typename T> T qpipe_learned(T x, int64_t at, double zero, double low, double high) {
  float scale = *reinterpret_cast<const float *>(at);
  float level = nearbyintf(float(x) * (1.0f / scale)) + float(zero);
  return T((fminf(fmaxf(level, float(low)), float(high)) - float(zero)) * scale);
})";
const std::string BACKWARD_OF_SINGLE = R"(
template <typename T>
void qpipe_learned_backward(T x, T gradient, int64_t at, double zero, double low, double high, T &of_x, T &of_scale) {
  float steps = float(x) * (1.0f / *reinterpret_cast<const float *>(at));
  float level = nearbyintf(steps) + float(zero);
  bool inside = level >= float(low) && level <= float(high);
  of_x = inside ? gradient : T(0);
  of_scale = T((fminf(fmaxf(level, float(low)), float(high)) - float(zero) - (inside ? steps : 0.0f)) * float(gradient));
})";
// Of float32, as weights are, which are small beside activations.
const std::string CHANNELS = R"(
template <typename T> T qpipe_learned_channels(T x, T scale, double zero, double low, double high) {
  T level = nearbyintf(x * (1.0f / scale)) + T(zero);
  return (fminf(fmaxf(level, T(low)), T(high)) - T(zero)) * scale;
})";
const std::string BACKWARD_OF_CHANNELS = R"(
template <typename T>
void qpipe_learned_channels_backward(T x, T gradient, T scale, double zero, double low, double high, T &of_x, T &of_scale) {
  T steps = x * (1.0f / scale), level = nearbyintf(steps) + T(zero);
  bool inside = level >= T(low) && level <= T(high);
  of_x = inside ? gradient : T(0);
  of_scale = (fminf(fmaxf(level, T(low)), T(high)) - T(zero) - (inside ? steps : T(0))) * gradient;
})";

struct FusedLearnedScale : torch::autograd::Function<FusedLearnedScale> {
  // `scale` as above, of float32; all have the zero point `zero`. With more than one of them `x` is of float32 too.
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, const at::Tensor &scale, int64_t zero,
                            int64_t axis, int64_t low, int64_t high, double factor) {
    auto own = scale.detach().contiguous();
    context->save_for_backward({x, own});
    context->saved_data["axis"] = axis;
    context->saved_data["factor"] = factor;
    context->saved_data["zero"] = zero;
    context->saved_data["low"] = low;
    context->saved_data["high"] = high;
    if (axis < 0) return jiterator::run(SINGLE, "qpipe_learned", {x.detach()}, with_address(own, levels(context)));
    return jiterator::run(CHANNELS, "qpipe_learned_channels", {x.detach(), along(own, x.dim(), axis)}, levels(context));
  }

  // The gradient of the scale is `round(x/s) − x/s` inside of the range and its end outside.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto x = saved[0].detach(), scale = saved[1], gradient = gradients[0].detach();
    auto axis = context->saved_data["axis"].toInt();
    auto both = axis < 0 ? jiterator::run_two(BACKWARD_OF_SINGLE, "qpipe_learned_backward", {x, gradient},
                                              with_address(scale, levels(context)))
                         : jiterator::run_two(BACKWARD_OF_CHANNELS, "qpipe_learned_channels_backward",
                                              {x, gradient, along(scale, x.dim(), axis)}, levels(context));
    auto summed = axes_but(x.dim(), axis);
    auto of_scale = summed.empty() ? both[1] : both[1].sum(summed, /*keepdim=*/false, at::kFloat);
    of_scale = of_scale.reshape_as(scale) * context->saved_data["factor"].toDouble();
    return {both[0], of_scale, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }

  static c10::SmallVector<at::Scalar> levels(torch::autograd::AutogradContext *context) {
    auto number = [&](const char *name) { return at::Scalar(double(context->saved_data[name].toInt())); };
    return {number("zero"), number("low"), number("high")};
  }

  static c10::SmallVector<at::Scalar> with_address(const at::Tensor &scale, c10::SmallVector<at::Scalar> numbers) {
    numbers.insert(numbers.begin(), at::Scalar(reinterpret_cast<int64_t>(scale.const_data_ptr())));
    return numbers;
  }

  static at::Tensor along(const at::Tensor &scale, int64_t dims, int64_t axis) {
    std::vector<int64_t> shape(dims, 1);
    shape[axis] = scale.numel();
    return scale.view(shape);
  }
};

} // namespace

extern "C" {

char *qpipe_learned_scale(const at::Tensor *x, const at::Tensor *scale, const at::Tensor *zero, int64_t axis, int64_t low,
                          int64_t high, double factor, at::Tensor **made) {
  return guarded([&] { *made = new at::Tensor(LearnedScale::apply(*x, *scale, *zero, axis, low, high, factor)); });
}

char *qpipe_fused_learned_scale(const at::Tensor *x, const at::Tensor *scale, int64_t zero, int64_t axis, int64_t low,
                                int64_t high, double factor, at::Tensor **made) {
  return guarded([&] { *made = new at::Tensor(FusedLearnedScale::apply(*x, *scale, zero, axis, low, high, factor)); });
}
}
