// libtorch's jiterator: element-wise kernels, compiled when they are first run. libtorch_cuda is opened at run time, where there is one.

#pragma once

#include <ATen/cuda/jiterator.h>

#include <dlfcn.h>
#include <string>

namespace jiterator {

using Launch = c10::SmallVector<at::Tensor> (*)(const std::string &, const std::string &, int,
                                                const c10::SmallVector<at::Tensor> &,
                                                const c10::SmallVector<at::Scalar> &, bool);

// Null where there is no GPU's libtorch.
inline Launch launcher() {
  static auto found = reinterpret_cast<Launch>(dlsym(RTLD_DEFAULT, "_ZN2at4cuda22CompileAndLaunchKernelERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEES8_iRKN3c1011SmallVectorINS_6TensorELj6EEERKNSA_INS9_6ScalarELj1EEEb"));
  return found;
}

// Runs the kernel `name` of `code` over tensors that are broadcast and promoted to one type, which is that of the result.
inline at::Tensor run(const std::string &code, const char *name, c10::SmallVector<at::Tensor> tensors,
                      c10::SmallVector<at::Scalar> numbers) {
  return launcher()(code, name, 1, tensors, numbers, /*return_by_ref=*/false)[0];
}

// The same of a kernel without a result, whose last two parameters are references to what it makes.
inline c10::SmallVector<at::Tensor> run_two(const std::string &code, const char *name, c10::SmallVector<at::Tensor> tensors,
                                            c10::SmallVector<at::Scalar> numbers) {
  return launcher()(code, name, 2, tensors, numbers, /*return_by_ref=*/true);
}

} // namespace jiterator
