"""Lightning tasks and recipes; each recipe is one module with one `train_...` function."""
