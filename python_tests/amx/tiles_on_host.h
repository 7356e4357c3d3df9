// The tile unit of AMX without an AMX: the instructions of tile_unit.h by their description in
// Intel's manual (volume 2: LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TDPBF16PS), on any CPU.
// What the hardware would refuse by a fault is thrown as a sentence.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace fastseq::tiles_on_host {

constexpr int kTiles = 8, kMostRows = 16, kMostBytes = 64;  // palette 1

// Sixteen float32, and one step of a chain of them: exact products, one rounding, to nearest.
typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));

// Subnormal numbers count as zero where they are read, and are zero where they are made; the sign
// stays. The machine's own mode (MXCSR) is not asked.
inline Words without_subnormals(Words bits) {
  return (bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits;
}
inline Floats floats_of(Words bits) {
  Floats found;
  std::memcpy(&found, &bits, sizeof(found));
  return found;
}
inline Floats flushed(Floats made) {
  Words bits;
  std::memcpy(&bits, &made, sizeof(bits));
  return floats_of(without_subnormals(bits));
}

class Unit {
 public:
  bool configured() const { return configured_; }

  void configure(const void* shapes) {
    const auto* const bytes = static_cast<const uint8_t*>(shapes);
    const auto zeros = [&](int first, int last) {
      for (int i = first; i < last; ++i)
        require(bytes[i] == 0, "ldtilecfg: a reserved byte is set");
    };
    require(bytes[0] <= 1, "ldtilecfg: there is no such palette");
    configured_ = bytes[0] == 1;
    if (!configured_) return;
    require(bytes[1] == 0, "ldtilecfg: a start row is for interrupted loads");
    zeros(2, 16);
    zeros(16 + 2 * kTiles, 48);
    zeros(48 + kTiles, 64);
    for (int i = 0; i < kTiles; ++i) {
      Tile& tile = tiles_[i];
      tile = {};
      tile.row_bytes = bytes[16 + 2 * i] + 256 * bytes[17 + 2 * i];
      tile.rows = bytes[48 + i];
      require(tile.row_bytes <= kMostBytes, "ldtilecfg: a row is too wide");
      require(tile.rows <= kMostRows, "ldtilecfg: a tile has too many rows");
      require((tile.rows == 0) == (tile.row_bytes == 0),
              "ldtilecfg: rows without bytes, or bytes without rows");
    }
  }
  void release() { *this = {}; }

  void zero(int t) { std::memset(tile(t, "tilezero").data, 0, sizeof(Tile::data)); }

  void load(int t, const void* from, int64_t pitch) {
    Tile& to = tile(t, "tileloadd");
    std::memset(to.data, 0, sizeof(to.data));
    for (int r = 0; r < to.rows; ++r) {
      std::memcpy(to.data[r], static_cast<const char*>(from) + r * pitch, to.row_bytes);
    }
  }
  void store(int t, void* to, int64_t pitch) {
    const Tile& from = tile(t, "tilestored");
    for (int r = 0; r < from.rows; ++r) {
      std::memcpy(static_cast<char*>(to) + r * pitch, from.data[r], from.row_bytes);
    }
  }

  // A row of the sum: the even items of all pairs in one chain, the odd ones in another, both from
  // zero; then their sum, which joins what was there.
  void multiply(int sum, int a, int b) {
    Tile& to = tile(sum, "tdpbf16ps");
    const Tile &left = tile(a, "tdpbf16ps"), &right = tile(b, "tdpbf16ps");
    require(sum != a && sum != b && a != b, "tdpbf16ps: a tile is named twice");
    require(to.row_bytes % 4 == 0 && left.row_bytes % 4 == 0 && right.row_bytes % 4 == 0,
            "tdpbf16ps: a row is no multiple of four bytes");
    require(to.rows == left.rows, "tdpbf16ps: sums and first factors have not as many rows");
    require(to.row_bytes == right.row_bytes, "tdpbf16ps: sums and second factors are not as wide");
    require(left.row_bytes / 4 == right.rows, "tdpbf16ps: not as many pairs in both factors");
    for (int m = 0; m < to.rows; ++m) {
      Floats even{}, odd{};
      for (int k = 0; k < right.rows; ++k) {
        uint32_t pair;
        std::memcpy(&pair, left.data[m] + 4 * k, sizeof(pair));
        Words pairs;
        std::memcpy(&pairs, right.data[k], sizeof(pairs));
        even = flushed(even + factor(Words{} + (pair << 16)) * factor(pairs << 16));
        odd = flushed(odd + factor(Words{} + (pair & 0xffff0000u)) * factor(pairs & 0xffff0000u));
      }
      Words before;
      std::memcpy(&before, to.data[m], sizeof(before));
      Floats total = flushed(even + odd);
      total = flushed(floats_of(without_subnormals(before)) + total);
      std::memcpy(to.data[m], &total, to.row_bytes);
    }
  }

 private:
  struct Tile {
    int rows = 0, row_bytes = 0;
    alignas(64) unsigned char data[kMostRows][kMostBytes] = {};
  };

  static void require(bool held, const char* what) {
    if (!held) throw std::runtime_error(what);
  }
  static Floats factor(Words bits) { return floats_of(without_subnormals(bits)); }

  Tile& tile(int t, const char* by) {
    require(configured_, "a tile is used and none is configured");
    if (tiles_[t].rows == 0) {
      throw std::runtime_error(std::string(by) + ": tile " + std::to_string(t) + " has no shape");
    }
    return tiles_[t];
  }

  bool configured_ = false;
  Tile tiles_[kTiles];
};

inline thread_local Unit unit;  // every thread has its own

}  // namespace fastseq::tiles_on_host

namespace fastseq::FASTSEQ_CAPABILITY::tile {

inline void configure(const void* shapes) { tiles_on_host::unit.configure(shapes); }
inline void release() { tiles_on_host::unit.release(); }
template <int kTile>
void zero() {
  tiles_on_host::unit.zero(kTile);
}
template <int kTile>
void load(const void* from, int64_t pitch) {
  tiles_on_host::unit.load(kTile, from, pitch);
}
template <int kTile>
void store(void* to, int64_t pitch) {
  tiles_on_host::unit.store(kTile, to, pitch);
}
template <int kSum, int kState, int kWeights>
void multiply() {
  tiles_on_host::unit.multiply(kSum, kState, kWeights);
}

}  // namespace fastseq::FASTSEQ_CAPABILITY::tile
