// What tch lacks of libtorch, behind a C interface. Each function gives a message on failure, which the caller frees with
// `qpipe_free`, and null on success. Tensors are `at::Tensor *`, as tch passes them.

#include "guarded.hpp"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <c10/core/Event.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

namespace {

using Tensors = const at::Tensor *const *;

std::vector<at::Tensor> list(Tensors tensors, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(*tensors[i]);
  return out;
}

std::optional<at::Tensor> optional(const at::Tensor *tensor) {
  return tensor ? std::optional<at::Tensor>(*tensor) : std::nullopt;
}

} // namespace

extern "C" {

void qpipe_free(char *message) { std::free(message); }

// Convolutions and matrix products of this thread take 16-bit floats from here to the matching end.
char *qpipe_autocast_begin(bool cuda, bool bfloat16) {
  return guarded([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    at::autocast::set_autocast_dtype(device, bfloat16 ? at::kBFloat16 : at::kHalf);
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

char *qpipe_autocast_end(bool cuda) {
  return guarded([&] {
    at::autocast::set_autocast_enabled(cuda ? at::kCUDA : at::kCPU, false);
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  });
}

// Which may round their factors of float32 to TF32 on GPUs that have it: 1 convolutions, 2 matrix products.
char *qpipe_allow_tf32(unsigned char which) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuDNN(which & 1);
    at::globalContext().setAllowTF32CuBLAS(which & 2);
  });
}

char *qpipe_allows_tf32(unsigned char *which) {
  return guarded([&] {
    auto &context = at::globalContext();
    *which = (context.allowTF32CuDNN() ? 1 : 0) | (context.allowTF32CuBLAS() ? 2 : 0);
  });
}

// Whether the same bits must come out each time; if not, cuDNN tries its algorithms for each new shape and takes the fastest.
char *qpipe_deterministic(bool on) {
  return guarded([&] {
    auto &context = at::globalContext();
    context.setDeterministicAlgorithms(on, /*warn_only=*/false);
    // Memory that is written before it is read needs no filling.
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicCuDNN(on);
  });
}

char *qpipe_cudnn_benchmark(bool on) {
  return guarded([&] { at::globalContext().setBenchmarkCuDNN(on); });
}

bool qpipe_is_deterministic() { return at::globalContext().deterministicAlgorithms(); }

// Of the CUDA that libtorch was built with, such as 12080; 0 without.
long qpipe_cuda_version() {
  try {
    return at::detail::getCUDAHooks().versionCUDART();
  } catch (...) {
    return 0;
  }
}

// A copy in memory that a GPU fetches from by itself.
char *qpipe_pinned(const at::Tensor *x, at::Tensor **made) {
  return guarded([&] { *made = new at::Tensor(x->pin_memory()); });
}

// Divides gradients by a scale (given as its inverse) in place; `found` becomes 1 where one of them is not finite.
char *qpipe_unscale(Tensors gradients, size_t count, at::Tensor *found, const at::Tensor *inverse) {
  return guarded([&] {
    auto all = list(gradients, count);
    at::_amp_foreach_non_finite_check_and_unscale_(all, *found, *inverse);
  });
}

// One step of SGD, as torch.optim.SGD with fused=True; nothing changes where `found` (may be null) is 1.
char *qpipe_sgd(Tensors parameters, Tensors gradients, Tensors momenta, size_t count, double lr, double momentum,
                double weight_decay, bool nesterov, const at::Tensor *found) {
  return guarded([&] {
    auto self = list(parameters, count), steps = list(gradients, count);
    auto velocities = momentum > 0 ? list(momenta, count) : std::vector<at::Tensor>();
    at::_fused_sgd_(self, steps, velocities, weight_decay, momentum, lr, /*dampening=*/0.0, nesterov,
                    /*maximize=*/false, /*is_first_step=*/false, /*grad_scale=*/{}, optional(found));
  });
}

// One step of AdamW, as torch.optim.AdamW with fused=True; `step` counts from 1.
char *qpipe_adamw(Tensors parameters, Tensors gradients, Tensors first, Tensors second, size_t count,
                  const at::Tensor *step, double lr, double weight_decay, const at::Tensor *found) {
  return guarded([&] {
    auto self = list(parameters, count), steps = list(gradients, count);
    auto means = list(first, count), squares = list(second, count);
    std::vector<at::Tensor> none, counts(count, *step);
    at::_fused_adamw_(self, steps, means, squares, none, counts, lr, 0.9, 0.999, weight_decay, 1e-8,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, optional(found));
  });
}

// Puts a mark into the queue of the GPU of that index; `event` is it, to be freed with `qpipe_event_free`.
char *qpipe_event_record(int index, void **event) {
  return guarded([&] {
    c10::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
    // In spite of its name the flag for an event that has a time.
    auto mark = std::make_unique<c10::Event>(device.type(), c10::EventFlag::BACKEND_DEFAULT);
    mark->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
    *event = mark.release();
  });
}

// Milliseconds that the GPU took from one mark to the next; waits until it has come to both.
char *qpipe_event_elapsed(const void *first, const void *second, double *milliseconds) {
  return guarded([&] {
    auto begin = static_cast<const c10::Event *>(first), end = static_cast<const c10::Event *>(second);
    end->synchronize();
    *milliseconds = begin->elapsedTime(*end);
  });
}

void qpipe_event_free(void *event) { delete static_cast<c10::Event *>(event); }

} // extern "C"
