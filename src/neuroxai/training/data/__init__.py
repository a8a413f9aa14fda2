"""Training data: split, preparation, batches of patches and slices, augmentation."""
