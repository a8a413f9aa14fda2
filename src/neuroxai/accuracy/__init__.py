"""How good a network is: segmentation, classification, intervals."""
