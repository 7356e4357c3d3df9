"""One ``torch.autograd.Function`` per op."""

from fastseq.autograd.recurrence import Recurrence, RecurrenceBackward

__all__ = ["Recurrence", "RecurrenceBackward"]
