"""Optimizers: what moves the weights, and which parameters decay."""
