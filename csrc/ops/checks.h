// What the ops share: types, words and the simplest checks.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "../kernels/types.h"

namespace fastseq::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline const char* text(const char* s) { return s; }
inline const std::string& text(const std::string& s) { return s; }
inline std::string text(int64_t n) { return std::to_string(n); }

// A RuntimeError of these words and numbers.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::string sentence;
  ((sentence += text(parts)), ...);
  throw std::runtime_error(sentence);
}

// Torch's own macro puts the function and the path of the file, on the machine that built it,
// before the sentence.
#define FASTSEQ_CHECK(condition, ...)    \
  do {                                   \
    if (!(condition)) [[unlikely]]       \
      ::fastseq::ops::fail(__VA_ARGS__); \
  } while (false)

// After a call of torch's C functions that failed: torch's words for it, which it has from 2.13 on,
// else ours. Looked up, because one build serves older ones too.
[[noreturn]] inline void fail_as_torch(const std::string& else_say) {
  const auto what = reinterpret_cast<const char* (*)()>(
      dlsym(RTLD_DEFAULT, "torch_exception_get_what_without_backtrace"));
  const char* const words = what ? what() : nullptr;
  fail(words && *words ? std::string(words) : else_say);
}

inline void check_torch(AOTITorchError error) {
  if (error != TORCH_SUCCESS) [[unlikely]] {
    fail_as_torch("fastseq: torch could not say what a tensor is like");
  }
}

inline DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat;
    case ScalarType::Double:
      return DType::kDouble;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kHalf;
    default:
      fail("fastseq: expected a tensor of float32, float64, bfloat16 or float16, got scalar type ",
           static_cast<int64_t>(t.scalar_type()));
  }
}

// The type of cell states that are kept for backward.
inline ScalarType sum_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline std::string shape_string(const Tensor& t) {
  std::string s = "[";
  for (int64_t i = 0; i < t.dim(); ++i) s += (i ? ", " : "") + std::to_string(t.size(i));
  return s + "]";
}

// On the device of `like`. By the C entry point: a call through the dispatcher costs 1 us.
inline Tensor new_strided(const Tensor& like, const std::vector<int64_t>& shape,
                          const std::vector<int64_t>& strides, std::optional<ScalarType> dtype) {
  int32_t type, device, index;
  check_torch(aoti_torch_get_dtype(like.get(), &type));
  check_torch(aoti_torch_get_device_type(like.get(), &device));
  check_torch(aoti_torch_get_device_index(like.get(), &index));
  if (dtype) {
    type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(*dtype));
  }
  AtenTensorHandle made;
  if (aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(), strides.data(),
                               type, device, index, &made) != TORCH_SUCCESS) [[unlikely]] {
    std::string sizes;
    for (const int64_t n : shape) sizes += (sizes.empty() ? "" : ", ") + std::to_string(n);
    fail_as_torch("fastseq: can't allocate memory for a tensor of shape [" + sizes + "]");
  }
  return Tensor(made);
}

// The same, dense.
inline Tensor new_tensor(const Tensor& like, const std::vector<int64_t>& shape,
                         std::optional<ScalarType> dtype = std::nullopt) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i] > 1 ? shape[i] : 1;
  }
  return new_strided(like, shape, strides, dtype);
}

}  // namespace fastseq::ops
