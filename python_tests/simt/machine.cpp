// The machine's settings, for ctypes.
#include "machine.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using fastseq::simt::machine;

EXPORT void simt_seed(uint64_t seed) { machine.seed = seed; }

// How many the GPU has; 0: as many as a small one.
EXPORT void simt_multiprocessors(int count) {
  machine.gpu.multiprocessors = count ? count : fastseq::simt::Gpu{}.multiprocessors;
}

// The barrier "file:line" does nothing from now on; "" restores all.
EXPORT void simt_drop_barrier(const char* site) { machine.dropped = site; }

EXPORT void simt_forget_barriers() { machine.sites.clear(); }

// Counts what each launch moves, from now on or no longer.
EXPORT void simt_count_traffic(bool on) { machine.traffic.on = on; }

// Of the last launch. A line for each tensor and for shared memory, read and written: its name,
// "read" or "write", requests, lanes, bytes, sectors or wavefronts, and the least wavefronts.
EXPORT const char* simt_traffic() {
  static std::string lines;
  lines.clear();
  for (const auto& [kind, sum] : machine.traffic.sums) {
    lines += kind;
    for (int64_t n : {sum.requests, sum.lanes, sum.bytes, sum.units, sum.least}) {
      lines += " " + std::to_string(n);
    }
    lines += "\n";
  }
  return lines.c_str();
}

// The barriers that launches have met since, one a line.
EXPORT const char* simt_barriers() {
  static std::string lines;
  lines.clear();
  for (const std::string& site : machine.sites) lines += site + "\n";
  return lines.c_str();
}
