// LRN, max-pool and the trio ReLU -> LRN -> max-pool on CUDA. Each returns null, or what went
// wrong, in words.
#pragma once

#include "../images.h"

namespace fastseq::cuda {

const char* lrn_forward(DType dtype, const LrnForward& a, void* stream);
const char* lrn_backward(DType dtype, const LrnBackward& a, void* stream);
const char* pool_forward(DType dtype, const PoolForward& a, void* stream);
const char* pool_backward(DType dtype, const PoolBackward& a, void* stream);
const char* trio_forward(DType dtype, const TrioForward& a, void* stream);
const char* trio_backward(DType dtype, const TrioBackward& a, void* stream);

}  // namespace fastseq::cuda
