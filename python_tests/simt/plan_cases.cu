// How launches of the image kernels are cut, for the tests: plans are made on the host.
#include "../../csrc/kernels/cuda/strip_plan.h"
#include "../../csrc/kernels/cuda/trio_tile.cuh"
#include "cases.h"

namespace fastseq::cases {
namespace {

using cuda::StripPlan;

const PoolWindow kUsual{{3, 2, 0, 1, 0}, {3, 2, 0, 1, 0}};

PoolWindow usual(int64_t height, int64_t width) {
  PoolWindow pool = kUsual;
  pool.h.out = (height - 3) / 2 + 1;
  pool.w.out = (width - 3) / 2 + 1;
  return pool;
}

template <int V>
StripPlan plan(const char* kind, const Images& images, int moves, int64_t least) {
  const cuda::Window<true> window(images, usual(images.height, images.width));
  if (!std::strcmp(kind, "LRN")) return cuda::lrn_strips<V>(images, moves, least);
  if (!std::strcmp(kind, "band")) return cuda::choose_band<V>(images, window, moves, least);
  return cuda::gather_strips<V>(images, window, moves, least);
}

}  // namespace

// Length, strips, threads, channels of a cut, cuts, rows and outputs.
EXPORT void strip_plan(const char* kind, int pack, const int64_t* shape, int moves, int64_t least,
                       int32_t* out) {
  const Images images{shape[0], shape[1], shape[2], shape[3], false};
  const StripPlan found =
      pack == 4 ? plan<4>(kind, images, moves, least) : plan<8>(kind, images, moves, least);
  const int values[] = {found.length,         found.strips, found.threads, found.channels.size,
                        found.channels.count, found.rows,   found.outputs};
  std::copy(std::begin(values), std::end(values), out);
}

// Outputs and inputs along each side, and how many tiles down and across.
EXPORT void pool_tile(int64_t height, int64_t width, int64_t most, int64_t edge, int64_t team,
                      int64_t* out) {
  const Images images{1, 1, height, width, false};
  const cuda::Window<true> window(images, usual(height, width));
  const cuda::PoolTile tile = cuda::choose_tile(window, most, edge, team);
  const int64_t values[] = {tile.oh, tile.ow, tile.ih, tile.iw, tile.down, tile.across};
  std::copy(std::begin(values), std::end(values), out);
}

}  // namespace fastseq::cases
