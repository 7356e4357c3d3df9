#include "memory.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdlib>
#include <mutex>

namespace fastseq::ops {
namespace {

constexpr uintptr_t kPage = 4'096;
constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kLeastHuge = 1 << 20;
constexpr int64_t kLeastKept = 64 << 10;  // below, malloc itself keeps the memory
constexpr int64_t kMostBlocks = 32;

void advise(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  if (bytes < kLeastHuge) return;
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // advice: may be refused
#endif
}

// In front of every block.
struct alignas(kAlign) Header {
  int64_t bytes;  // behind the header
};

struct Kept {
  std::mutex mutex;
  Header* blocks[kMostBlocks];  // oldest first
  int64_t count = 0, bytes = 0;

  Header* remove(int64_t i) {
    Header* const found = blocks[i];
    for (; i + 1 < count; ++i) blocks[i] = blocks[i + 1];
    --count;
    bytes -= found->bytes;
    return found;
  }
};

Kept& kept();

// Never destroyed: tensors may be freed after the statics of a process that exits. Nobody holds the
// lock while the process forks: in the child nobody would be left to give it back.
Kept* made() {
  pthread_atfork([] { kept().mutex.lock(); }, [] { kept().mutex.unlock(); },
                 [] { kept().mutex.unlock(); });
  return new Kept;
}

Kept& kept() {
  static Kept* const one = made();
  return *one;
}

int64_t most_kept_bytes() {
  static const int64_t most = [] {
    const char* const text = std::getenv("FASTSEQ_KEEP_MB");
    const int64_t megabytes = text ? std::atoll(text) : 256;
    return (megabytes > 0 ? megabytes : 0) << 20;
  }();
  return most;
}

}  // namespace

void advise_huge_pages(const Tensor& t) {
  advise(t.mutable_data_ptr(), t.numel() * static_cast<int64_t>(t.element_size()));
}

void* acquire(int64_t bytes) {
  if (bytes >= kLeastKept) {
    const std::unique_lock<std::mutex> lock(kept().mutex, std::try_to_lock);
    if (lock) {
      Kept& k = kept();
      int64_t best = -1;
      for (int64_t i = 0; i < k.count; ++i) {
        const int64_t size = k.blocks[i]->bytes;
        if (size < bytes || size > bytes + bytes / 2) continue;
        if (best < 0 || size < k.blocks[best]->bytes) best = i;
      }
      if (best >= 0) return k.remove(best) + 1;
    }
  }
  const int64_t align = bytes >= kLeastHuge ? kHugePage : kAlign;
  const int64_t whole = static_cast<int64_t>(sizeof(Header)) + rounded(bytes);
  void* const memory = std::aligned_alloc(align, (whole + align - 1) / align * align);
  FASTSEQ_CHECK(memory != nullptr, "fastseq: can't allocate memory: you tried to allocate ", bytes,
                " bytes");
  advise(memory, whole);
  Header* const header = static_cast<Header*>(memory);
  header->bytes = rounded(bytes);
  return header + 1;
}

void release(void* block) {
  Header* const header = static_cast<Header*>(block) - 1;
  if (header->bytes >= kLeastKept && header->bytes <= most_kept_bytes()) {
    const std::unique_lock<std::mutex> lock(kept().mutex, std::try_to_lock);
    if (lock) {
      Kept& k = kept();
      while (k.count == kMostBlocks || k.bytes + header->bytes > most_kept_bytes()) {
        std::free(k.remove(0));
      }
      k.blocks[k.count++] = header;
      k.bytes += header->bytes;
      return;
    }
  }
  std::free(header);
}

int64_t drop_kept() {
  const std::lock_guard<std::mutex> lock(kept().mutex);
  const int64_t bytes = kept().bytes;
  while (kept().count > 0) std::free(kept().remove(0));
  return bytes;
}

Tensor new_internal(const Tensor& like, const std::vector<int64_t>& shape,
                    std::optional<ScalarType> dtype) {
  const ScalarType type = dtype ? *dtype : like.scalar_type();
  int64_t count = 1;
  std::vector<int64_t> strides(shape.size());
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = count;
    count *= shape[i];
  }
  const int64_t bytes = count * (type == ScalarType::Double  ? 8
                                 : type == ScalarType::Float ? 4
                                                             : 2);
  if (bytes < kLeastKept || !like.is_cpu()) return new_tensor(like, shape, dtype);
  return torch::stable::from_blob(acquire(bytes), shape, strides, like.device(), type, &release);
}

}  // namespace fastseq::ops
