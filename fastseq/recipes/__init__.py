"""What one would do with the layers: a folder for each recipe, study and search.

A recipe is a room of its own: options, data, task, figures and run side by side. `shared` has what
several of them use, and no recipe imports another, but for the search of one's options.
"""

from importlib import import_module
from pkgutil import iter_modules


def commands() -> dict[str, str]:
    """Return the folder of every recipe, by the words of its command: ``"train rows"``."""
    found = {}
    for _, folder, _ in iter_modules(__path__):
        words = getattr(import_module(f"{__name__}.{folder}"), "COMMAND", None)
        if words is not None:
            found[words] = folder
    return found
