// Fake quantization whose scales have a gradient (LSQ), without waiting for a GPU: libtorch's own (`_fake_quantize_learnable_…`) asks the GPU for
// the scale and the zero point in each call, and writes three results as large as the input where its backward pass needs two numbers.

#include "guarded.hpp"
#include "jiterator.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.h>
#include <ATen/ops/fake_quantize_per_channel_affine_cachemask.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/custom_function.h>

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

// The same in one kernel each way, and one more with a sum for the scale's gradient, in the type of `x`: nothing but `x` is kept for the backward
// pass. A kernel's tensors are promoted to one type, in which a scale of float32 would be rounded to float16, or `x` written as float32; so the scale
// comes as its four bytes, whole numbers that any type of floats holds, one tensor each.
const std::string FORWARD = R"(
template <typename T> T qpipe_learned(T x, T b0, T b1, T b2, T b3, double zero, double low, double high) {
  float scale = __int_as_float(int(float(b0)) | int(float(b1)) << 8 | int(float(b2)) << 16 | int(float(b3)) << 24);
  float level = nearbyintf(float(x) * (1.0f / scale)) + float(zero);
  return T((fminf(fmaxf(level, float(low)), float(high)) - float(zero)) * scale);
})";
const std::string STRAIGHT = R"(
template <typename T>
T qpipe_learned_straight(T x, T gradient, T b0, T b1, T b2, T b3, double zero, double low, double high) {
  float scale = __int_as_float(int(float(b0)) | int(float(b1)) << 8 | int(float(b2)) << 16 | int(float(b3)) << 24);
  float level = nearbyintf(float(x) * (1.0f / scale)) + float(zero);
  return level >= float(low) && level <= float(high) ? gradient : T(0);
})";
// In float32, to which the scale promotes the others.
const std::string OF_SCALE = R"(
template <typename T> T qpipe_learned_scale(T x, T gradient, T scale, double zero, double low, double high) {
  T level = nearbyintf(x * (1.0f / scale)) + T(zero);
  bool inside = level >= T(low) && level <= T(high);
  return ((fminf(fmaxf(level, T(low)), T(high)) - T(zero)) * scale - (inside ? x : T(0))) * gradient;
})";

struct FusedLearnedScale : torch::autograd::Function<FusedLearnedScale> {
  // `scale` as above, of float32; all have the zero point `zero`.
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, const at::Tensor &scale, int64_t zero,
                            int64_t axis, int64_t low, int64_t high, double factor) {
    std::vector<int64_t> shape(x.dim(), 1);
    if (axis >= 0) shape[axis] = scale.numel();
    auto spread = scale.detach().contiguous().view(shape);
    shape.push_back(4);
    auto bytes = spread.view(at::kByte).view(shape).to(x.scalar_type());
    context->save_for_backward({x, scale, spread, bytes});
    context->saved_data["axis"] = axis;
    context->saved_data["factor"] = factor;
    context->saved_data["zero"] = zero;
    context->saved_data["low"] = low;
    context->saved_data["high"] = high;
    return jiterator::run(FORWARD, "qpipe_learned", with_bytes({x.detach()}, bytes), {double(zero), double(low), double(high)});
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto x = saved[0].detach(), scale = saved[1].detach(), gradient = gradients[0].detach();
    auto number = [&](const char *name) { return double(context->saved_data[name].toInt()); };
    c10::SmallVector<at::Scalar> levels = {number("zero"), number("low"), number("high")};
    auto of_x = jiterator::run(STRAIGHT, "qpipe_learned_straight", with_bytes({x, gradient}, saved[3]), levels);
    auto of_scale = jiterator::run(OF_SCALE, "qpipe_learned_scale", {x, gradient, saved[2]}, levels);
    auto summed = axes_but(x.dim(), context->saved_data["axis"].toInt());
    if (!summed.empty()) of_scale = of_scale.sum(summed);
    of_scale = of_scale.reshape_as(scale) / scale * context->saved_data["factor"].toDouble();
    return {of_x, of_scale, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }

  static c10::SmallVector<at::Tensor> with_bytes(c10::SmallVector<at::Tensor> tensors, const at::Tensor &bytes) {
    for (int64_t i = 0; i < 4; i++)
      tensors.push_back(bytes.select(-1, i));
    return tensors;
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
