"""Features, coalitions and values, shared by the perturbation methods."""
