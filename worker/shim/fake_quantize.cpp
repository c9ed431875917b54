// Quantization and dequantization with one scale as one kernel on a GPU, with the straight-through gradient inside the range. libtorch's own
// (`fake_quantize_per_tensor_affine`) writes a mask beside each result and loads element by element; this computes the mask again from the input
// and moves whole vectors. The kernels are compiled when they are first run, by libtorch's jiterator.

#include "guarded.hpp"
#include "jiterator.hpp"

#include <torch/csrc/autograd/custom_function.h>

namespace {

// As ATen rounds: `nearbyint` of the product with the inverse of the scale, then the zero point.
const std::string FORWARD = R"(
template <typename T> T qpipe_fake_quantize(T x, double inverse, double scale, double zero, double low, double high) {
  float level = nearbyintf(float(x) * float(inverse)) + float(zero);
  return T((fminf(fmaxf(level, float(low)), float(high)) - float(zero)) * float(scale));
})";
const std::string BACKWARD = R"(
template <typename T> T qpipe_straight_through(T x, T gradient, double inverse, double zero, double low, double high) {
  float level = nearbyintf(float(x) * float(inverse)) + float(zero);
  return level >= float(low) && level <= float(high) ? gradient : T(0);
})";

struct FakeQuantize : torch::autograd::Function<FakeQuantize> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, double scale, int64_t zero,
                            int64_t low, int64_t high) {
    float inverse = 1.0f / static_cast<float>(scale);
    context->save_for_backward({x});
    context->saved_data["inverse"] = static_cast<double>(inverse);
    context->saved_data["zero"] = zero;
    context->saved_data["low"] = low;
    context->saved_data["high"] = high;
    return jiterator::run(FORWARD, "qpipe_fake_quantize", {x.detach()},
                          {static_cast<double>(inverse), scale, double(zero), double(low), double(high)});
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto x = context->get_saved_variables()[0];
    auto number = [&](const char *name) { return double(context->saved_data[name].toInt()); };
    auto gradient = jiterator::run(BACKWARD, "qpipe_straight_through", {x.detach(), gradients[0]},
                                   {context->saved_data["inverse"].toDouble(), number("zero"), number("low"), number("high")});
    return {gradient, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

} // namespace

extern "C" {

// Whether the kernels can be compiled here: there is a GPU's libtorch with its compiler.
bool qpipe_can_fake_quantize() { return jiterator::launcher() != nullptr; }

char *qpipe_fake_quantize(const at::Tensor *x, double scale, int64_t zero, int64_t low, int64_t high, at::Tensor **made) {
  return guarded([&] { *made = new at::Tensor(FakeQuantize::apply(*x, scale, zero, low, high)); });
}
}
