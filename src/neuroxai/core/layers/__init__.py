"""Layers of a network: finding them, recording their activations, and reducing these to maps."""
