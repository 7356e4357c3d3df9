#include "caches.h"

#include <cstdio>

namespace fastseq {
namespace {

#if defined(__linux__)
// A file of the kernel's about cache `index`; false where there is none.
bool read_fact(int index, const char* name, char (&text)[16]) {
  char path[96];
  std::snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, name);
  std::FILE* const file = std::fopen(path, "re");
  if (!file) return false;
  const bool read = std::fgets(text, sizeof(text), file) != nullptr;
  std::fclose(file);
  return read;
}

// "512K" or "32M", in bytes.
int64_t bytes_of(const char* text) {
  int64_t n = 0;
  for (; *text >= '0' && *text <= '9'; ++text) n = 10 * n + (*text - '0');
  return n << (*text == 'K' ? 10 : *text == 'M' ? 20 : 0);
}

// Of the kernel rather than of sysconf: that one adds up the L3 caches of all the dies, and knows
// none on ARM.
void ask_kernel(Caches& found) {
  char level[16], type[16], size[16];
  for (int index = 0; read_fact(index, "level", level); ++index) {
    if (!read_fact(index, "type", type) || type[0] == 'I') continue;  // instructions
    if (!read_fact(index, "size", size)) continue;
    const int64_t bytes = bytes_of(size);
    if (bytes == 0) continue;
    if (level[0] == '1') found.l1 = bytes;
    if (level[0] == '2') found.l2 = bytes;
    if (level[0] == '3') found.l3 = bytes;
  }
}
#endif

Caches look() {
  Caches found{32 << 10, 512 << 10, 8 << 20};  // what most laptops have at least
#if defined(__linux__)
  ask_kernel(found);
#endif
  return found;
}

}  // namespace

const Caches& caches() {
  static const Caches found = look();
  return found;
}

}  // namespace fastseq
