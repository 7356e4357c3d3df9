#!/usr/bin/env bash
# On a machine with a GPU, torch, nvcc, cmake, ninja and pybind11: build, test, measure, in one go.
# Usage: benchmarks/on_gpu.sh [folder for logs and CSV, default benchmarks/results]
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results}
mkdir -p "$out"

FASTSEQ_CUDA=1 FASTSEQ_CUDA_ARCHITECTURES=${FASTSEQ_CUDA_ARCHITECTURES:-native} \
  pip install --no-build-isolation --no-deps . 2>&1 | tail -n 5 || exit 1
pytest -m cuda -q 2>&1 | tee "$out/gpu_tests.log" | tail -n 15
for cell in lstm gru rnn; do
  for dtype in float32 bfloat16 float16; do
    python benchmarks/rnn.py --device cuda --cell "$cell" --dtype "$dtype" \
      --out "$out/rnn_cuda.csv" 2>&1 | tail -n 20
  done
done
for op in lrn pool trio; do
  for dtype in float32 bfloat16; do
    for shape in 128,96,55,55 256,96,55,55 128,256,27,27 256,256,27,27; do
      python "benchmarks/$op.py" --device cuda --dtype "$dtype" --shape "$shape" \
        --out "$out/${op}_cuda.csv" 2>&1 | tail -n 8
    done
  done
done
