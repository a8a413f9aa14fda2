"""Passes through a network: scores, gradients and layer maps, in the memory available."""
