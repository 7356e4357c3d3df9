// The schema of every op. Implementations register themselves beside their code, one per device.
#include <torch/csrc/stable/library.h>

#include "images_schema.h"
#include "recurrence_schema.h"

STABLE_TORCH_LIBRARY(fastseq, m) {
  m.def(fastseq::ops::kRecurrenceSchema);
  m.def(fastseq::ops::kRecurrenceBackwardSchema);
  m.def(fastseq::ops::kPersistentSchema);
  m.def(fastseq::ops::kPersistentBackwardSchema);
  m.def(fastseq::ops::kLayerSchema);
  m.def(fastseq::ops::kLayerBackwardSchema);
  m.def(fastseq::ops::kExtendedLayerSchema);
  m.def(fastseq::ops::kExtendedLayerBackwardSchema);
  m.def(fastseq::ops::kStepSchema);
  m.def(fastseq::ops::kStepInPlaceSchema);
  m.def(fastseq::ops::kLinearSchema);
  m.def(fastseq::ops::kPackLayerSchema);
  m.def(fastseq::ops::kPackedStackSchema);
  m.def(fastseq::ops::kEmptyCacheSchema);
  m.def(fastseq::ops::kLrnSchema);
  m.def(fastseq::ops::kLrnBackwardSchema);
  m.def(fastseq::ops::kPoolSchema);
  m.def(fastseq::ops::kPoolBackwardSchema);
  m.def(fastseq::ops::kTrioSchema);
  m.def(fastseq::ops::kTrioBackwardSchema);
}
