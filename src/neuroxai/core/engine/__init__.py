"""How one pass through a network is run."""
