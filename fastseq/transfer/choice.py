"""Which way to transfer: a table of how much data there are and how similar they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """One field of the table; print it.

    Attributes:
        data: ``"little"`` or ``"much"``, of the new task.
        domain: ``"similar"`` to what the network was trained on, or ``"different"``.
        advice: What to train.
        reason: Why.
        code: How, with `fastseq.transfer`, for a ``model``, ``num_classes`` and a ``loader``.
    """

    data: str
    domain: str
    advice: str
    reason: str
    code: str

    def __str__(self) -> str:
        """Advice, reason and code."""
        code = "\n".join(f"    {line}" for line in self.code.splitlines())
        return f"{self.data} {self.domain} data: {self.advice}\n  {self.reason}\n{code}"


_CHOICES = (
    Choice(
        "little",
        "similar",
        "a new linear head on frozen features",
        "The top features already tell such images apart, and few labels would overfit more.",
        "replace_head(model, num_classes)\nfreeze_features(model)",
    ),
    Choice(
        "much",
        "similar",
        "a new head, and fine-tune the last few layers",
        "The features nearly fit, and there are labels enough to bend the last of them.",
        "replace_head(model, num_classes)\nfreeze_features(model)\nunfreeze(model, last=2)\n"
        "groups = param_groups(model, lr=0.001)",
    ),
    Choice(
        "little",
        "different",
        "a linear classifier on features from an earlier layer",
        "The top features are about the old classes; edges and textures below them are not.",
        "names = layer_names(model)\n"
        "features, labels = extract_features(model, loader, layer=names[len(names) // 2])",
    ),
    Choice(
        "much",
        "different",
        "a new head, and fine-tune more layers, or all",
        "The old weights are only a good place to start from, and the labels can carry the rest.",
        "replace_head(model, num_classes)\nunfreeze(model)\ngroups = param_groups(model, lr=0.001)",
    ),
)


def choose(data: str, domain: str) -> Choice:
    """Say what to train, why, and how.

    The table is that of the courses (CSE471 and 18AIC301J, transfer learning). It gives no numbers
    for "little" and "much"; where in doubt, ``fastseq train transfer`` compares the ways.

    Args:
        data: ``"little"`` or ``"much"``: labelled data of the new task.
        domain: ``"similar"`` or ``"different"``: the new data, beside those of the old task.

    Returns:
        A choice that explains itself when printed.

    Raises:
        ValueError: If an argument is another word.

    Example:
        >>> from fastseq.transfer import choose
        >>> print(choose(data="little", domain="similar"))
        little similar data: a new linear head on frozen features
          The top features already tell such images apart, and few labels would overfit more.
            replace_head(model, num_classes)
            freeze_features(model)
    """
    for name, value in (("data", data), ("domain", domain)):
        known = sorted({getattr(choice, name) for choice in _CHOICES})
        if value not in known:
            words = " or ".join(map(repr, known))
            raise ValueError(f"{name} is {value!r}, expected {words}; pass {name}={known[0]!r}")
    (choice,) = (c for c in _CHOICES if (c.data, c.domain) == (data, domain))
    return choice


def choice_table() -> str:
    """Return all four choices as one text.

    Example:
        >>> from fastseq.transfer import choice_table
        >>> print(choice_table())  # doctest: +ELLIPSIS
        little similar data: a new linear head on frozen features
        ...
    """
    return "\n\n".join(map(str, _CHOICES))
