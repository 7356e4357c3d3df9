"""What one would do with the layers: a folder for each recipe, study and search.

A recipe is a room of its own: options, data, task, figures and run side by side. `shared` has what
several of them use, and no recipe imports another, but for the search of one's options.
"""

# The words of each command, and its folder here.
COMMANDS = {
    "train rows": "rows",
    "train scenes": "scenes",
    "train transfer": "transfer",
    "train chars": "chars",
    "train tags": "tags",
    "train translate": "translate",
    "tune rows": "tune_rows",
    "study gradients": "gradients",
    "study invariance": "invariance",
    "study lrn": "lrn",
}
