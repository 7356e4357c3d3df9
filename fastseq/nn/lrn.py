"""``LocalResponseNorm`` as a module."""

from __future__ import annotations

from torch import Tensor, nn
from torch._jit_internal import is_scripting

from fastseq import _script, functional


class LocalResponseNorm(nn.LocalResponseNorm):
    """Drop-in for ``torch.nn.LocalResponseNorm``, and the within-channel kind that it lacks.

    Args:
        size: n, the window in channels, or in pixels along both sides with ``within_channel``.
        alpha: the scale, divided by the window's number of elements.
        beta: the exponent.
        k: the constant.
        within_channel: the window is n x n pixels of one channel.

    Shapes:
        input (N, C, ...), (N, C, H, W) with ``within_channel``; output likewise.

    Raises:
        ValueError: the input has too few dimensions.

    See ``fastseq.functional.local_response_norm`` for the formula and other libraries' alpha.

    Example:
        >>> y = fastseq.LocalResponseNorm(5, alpha=5e-4, k=2.0)(torch.randn(8, 96, 55, 55))
    """

    __constants__ = [*nn.LocalResponseNorm.__constants__, "within_channel"]  # noqa: RUF012

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        within_channel: bool = False,
    ) -> None:
        super().__init__(size, alpha, beta, k)
        self.within_channel = within_channel

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalized input."""
        if is_scripting():
            return _script.local_response_norm(
                input, self.size, self.alpha, self.beta, self.k, self.within_channel
            )
        return functional.local_response_norm(
            input, self.size, self.alpha, self.beta, self.k, self.within_channel
        )

    def extra_repr(self) -> str:
        """Show the options as torch.nn does, and the added one where it is used."""
        shown: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return shown + (", within_channel=True" if self.within_channel else "")
