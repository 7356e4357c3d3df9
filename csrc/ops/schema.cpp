// The schema of every op. Implementations register themselves beside their code, one per device.
#include <torch/csrc/stable/library.h>

#include "recurrence_schema.h"

STABLE_TORCH_LIBRARY(fastseq, m) {
  m.def(fastseq::ops::kRecurrenceSchema);
  m.def(fastseq::ops::kRecurrenceBackwardSchema);
}
