"""What runs inside a network, and how it is recorded."""
