"""Accuracy of a network: segmentation, classification, confidence intervals."""
