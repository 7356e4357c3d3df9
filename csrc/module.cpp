// fastseq._C: facts about this build and the planner. No tensor crosses this module.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <vector>

#include "kernels/cpu/capability.h"
#include "kernels/cpu/plan.h"
#include "kernels/cuda/persistent.h"

#ifndef FASTSEQ_CUDA_VERSION
#define FASTSEQ_CUDA_VERSION ""
#define FASTSEQ_CUDA_ARCHITECTURES ""
#endif

namespace py = pybind11;

namespace {

std::map<std::string, std::string> build_info() {
  return {{"version", FASTSEQ_VERSION},
          {"torch", FASTSEQ_TORCH_VERSION},
          {"compiler", FASTSEQ_COMPILER},
          {"cuda", FASTSEQ_CUDA_VERSION},
          {"cuda_architectures", FASTSEQ_CUDA_ARCHITECTURES},
          {"cuda_note", FASTSEQ_CUDA_NOTE}};
}

std::vector<std::string> cpu_capabilities() {
  std::vector<std::string> names;
  for (int i = 0; i < fastseq::kCapabilities; ++i) {
    if (fastseq::capability_available(static_cast<fastseq::Capability>(i))) {
      names.emplace_back(fastseq::kCapabilityNames[i]);
    }
  }
  return names;
}

std::string cpu_capability() {
  return fastseq::kCapabilityNames[static_cast<int>(fastseq::capability())];
}

std::map<std::string, int64_t> plan_recurrence(int64_t cell, int64_t steps, int64_t batch,
                                               int64_t input, int64_t hidden, int64_t state,
                                               int64_t threads) {
  if (cell < 0 || cell > 3) throw py::value_error("cell should be 0, 1, 2 or 3");
  const auto kind = static_cast<fastseq::Cell>(cell);
  const int64_t useful =
      fastseq::useful_threads(kind, steps * batch, hidden, state, input, threads);
  // Units that a thread takes whole: a vector of float32 of each gate, or four of a plain cell.
  const int64_t lanes = fastseq::capability() >= fastseq::Capability::kAvx512 ? 16
                        : fastseq::capability() == fastseq::Capability::kAvx2 ? 8
                                                                              : 4;
  const int64_t block = fastseq::gates_of(kind) > 1 ? lanes : 4 * lanes;
  const int64_t panels = (hidden + block - 1) / block;
  const auto plan = fastseq::plan_recurrence(kind, batch, hidden, state, panels, useful);
  return {{"threads", useful}, {"batches", plan.batches}, {"units", plan.units}};
}

std::string persistent_kernel(int64_t cell, int64_t itemsize, int64_t hidden) {
  if (cell < 0 || cell > 3) throw py::value_error("cell should be 0, 1, 2 or 3");
  const fastseq::DType dtype = itemsize == 2   ? fastseq::DType::kHalf
                               : itemsize == 4 ? fastseq::DType::kFloat
                                               : fastseq::DType::kDouble;
  switch (fastseq::cuda::persistent_kernel(static_cast<fastseq::Cell>(cell), dtype, hidden)) {
    case fastseq::cuda::Persistent::kSelf:
      return "self";
    case fastseq::cuda::Persistent::kNone:
      break;
  }
  return "";
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build facts and the kernel planner of fastseq.";
  m.def("build_info", &build_info, "What this build was made with.");
  m.def("cpu_capabilities", &cpu_capabilities,
        "Instruction sets that this build contains and this machine has, slowest first.");
  m.def("cpu_capability", &cpu_capability, "The instruction set whose kernels run.");
  m.def("plan_recurrence", &plan_recurrence, py::arg("cell"), py::arg("steps"), py::arg("batch"),
        py::arg("input"), py::arg("hidden"), py::arg("state"), py::arg("threads"),
        "How a recurrence of this shape is split over CPU threads.");
  m.def(
      "persistent_kernel", &persistent_kernel, py::arg("cell"), py::arg("itemsize"),
      py::arg("hidden"),
      "The CUDA kernel that runs all steps of such a layer in one launch, built or not; or \"\".");
}
