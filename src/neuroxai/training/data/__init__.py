"""Training data: cases, splits, patches, slices and augmentation."""
