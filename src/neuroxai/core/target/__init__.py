"""What is explained: a scalar per sample, made from the model output."""
