"""Measure how far gradients reach back in RNN, GRU and LSTM: vanishing, exploding, clipped."""

COMMAND = "study gradients"
