// How launches of the image kernels are cut, for the tests: plans are made on the host.
#include "../../csrc/kernels/cuda/trio_rows.cuh"
#include "../../csrc/kernels/cuda/trio_tile.cuh"
#include "cases.h"

namespace fastseq::cases {
namespace {

using cuda::RowPlan;
using cuda::StripPlan;

PoolWindow usual(int64_t height, int64_t width, int64_t padding = 0) {
  const auto side = [padding](int64_t pixels) {
    return PoolSide{3, 2, padding, 1, (pixels + 2 * padding - 3) / 2 + 1};
  };
  return {side(height), side(width)};
}

template <int V>
StripPlan plan(const char* kind, const Images& images, int moves, int threads, int64_t least) {
  const cuda::Window<true> window(images, usual(images.height, images.width));
  if (!std::strcmp(kind, "LRN")) return cuda::lrn_strips<V>(images, moves, least);
  if (!std::strcmp(kind, "band")) {
    return cuda::choose_band<V>(images, window, {moves, threads}, least);
  }
  return cuda::gather_strips<V>(images, window, {moves, threads}, least);
}

// f(plan, outputs or pairs across, and down)
template <class S, bool kFlat, class F>
void with_row_plan(const char* kind, const Images& images, const cuda::Window<true>& window,
                   const F& f) {
  const bool trio = !std::strncmp(kind, "trio", 4);
  const bool backward = std::strstr(kind, "backward");
  const auto needs =
      trio       ? backward ? cuda::trio_quads_needs<S, kFlat> : cuda::trio_rows_needs<S, kFlat>
      : backward ? cuda::pool_quads_needs<S, kFlat>
                 : cuda::pool_rows_needs<S, kFlat>;
  const int width = backward ? cuda::pairs(window.w, window.width) : window.w.out;
  const int height = backward ? cuda::pairs(window.h, window.height) : window.h.out;
  f(cuda::choose_rows(images, width, height, !trio && !kFlat, needs), width, height);
}
template <class F>
void with_row_plan(const char* kind, int pack, bool flat, const Images& images,
                   const cuda::Window<true>& window, const F& f) {
  if (pack == 4 && flat) return with_row_plan<float, true>(kind, images, window, f);
  if (pack == 4) return with_row_plan<float, false>(kind, images, window, f);
  if (flat) return with_row_plan<BFloat16, true>(kind, images, window, f);
  with_row_plan<BFloat16, false>(kind, images, window, f);
}

}  // namespace

// Length, strips, threads, channels of a cut, cuts, rows and outputs.
EXPORT void strip_plan(const char* kind, int pack, const int64_t* shape, int moves, int threads,
                       int64_t least, int32_t* out) {
  const Images images{shape[0], shape[1], shape[2], shape[3], false};
  const StripPlan found = pack == 4 ? plan<4>(kind, images, moves, threads, least)
                                    : plan<8>(kind, images, moves, threads, least);
  const int values[] = {found.length,         found.count, found.threads, found.channels.size,
                        found.channels.count, found.rows,  found.outputs};
  std::copy(std::begin(values), std::end(values), out);
}

// Sizes and counts of columns, rows and channels; threads and bytes.
EXPORT void row_plan(const char* kind, int pack, bool flat, const int64_t* shape, int64_t padding,
                     int32_t* out) {
  const Images images{shape[0], shape[1], shape[2], shape[3], true};
  const cuda::Window<true> window(images, usual(shape[2], shape[3], padding));
  with_row_plan(kind, pack, flat, images, window, [&](const RowPlan& found, int, int) {
    const int values[] = {found.columns.size, found.columns.count,          found.rows.size,
                          found.rows.count,   found.channels.size,          found.channels.count,
                          found.threads,      static_cast<int>(found.bytes)};
    std::copy(std::begin(values), std::end(values), out);
  });
}

// Of a block by its number: image, the first element that it has of x and of a tensor of the
// outputs' size, and how many blocks there are. NCHW: of LRN's strips and of a band.
EXPORT void place_of_block(const char* kind, const int64_t* shape, bool last, int64_t block,
                           int64_t* out) {
  const Images images{shape[0], shape[1], shape[2], shape[3], last};
  const cuda::Window<true> window(images, usual(shape[2], shape[3]));
  if (last) {
    with_row_plan(kind, 8, false, images, window, [&](const RowPlan& plan, int width, int height) {
      const cuda::RowWalk walk(images, plan, width, height, block);
      const cuda::RowsOf<const char> rows(nullptr, images, walk, window.height, window.width,
                                          2 * walk.column, window.width);
      const cuda::RowsOf<const char> outputs(nullptr, images, walk, window.h.out, window.w.out,
                                             walk.column, window.w.out);
      const int64_t values[] = {walk.image, rows.start + 2 * walk.from * rows.pitch,
                                outputs.start + walk.from * outputs.pitch,
                                plan.grid(images).blocks};
      std::copy(std::begin(values), std::end(values), out);
    });
    return;
  }
  const StripPlan found = plan<8>(kind, images, 4, 512, 20);
  const cuda::StripWalk walk(images, found, block);
  const cuda::Band band(window, found, walk);
  const bool whole_rows = found.rows > 0;
  const char* const nothing = nullptr;
  const auto x = whole_rows ? cuda::band_of(nothing, images, walk, band)
                            : cuda::strip_of(nothing, images, found, walk);
  const auto y = cuda::outputs_of(nothing, images, walk, window, band.first_output, band.outputs);
  const int64_t values[] = {walk.image, x.start + walk.from * x.plane,
                            y.start + walk.from * y.plane, found.blocks(images)};
  std::copy(std::begin(values), std::end(values), out);
}

// Image, channel, row and column of an element.
EXPORT void place_of_element(const int64_t* shape, bool last, int64_t element, int64_t* out) {
  const cuda::Element e({shape[0], shape[1], shape[2], shape[3], last}, element);
  const int64_t values[] = {e.image, e.channel, e.h, e.w};
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
