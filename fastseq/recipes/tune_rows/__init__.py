"""Search the hyper-parameters of `fastseq train rows` with Optuna."""

COMMAND = "tune rows"
