// The library's mailbox, whose launches the machine holds to their tensors.
#include "../../csrc/kernels/cuda/mailbox.cu"
#include "mailbox_regions.h"
