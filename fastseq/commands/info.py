"""`fastseq info`."""

from __future__ import annotations


def info() -> None:
    """Print versions, loaded libraries, CPU capability and CUDA architectures."""
    import fastseq

    facts = fastseq.info()
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
