"""How a pass through a network is run: kernels, precision, memory, and restoring the network."""
