"""What changes a backward pass."""
