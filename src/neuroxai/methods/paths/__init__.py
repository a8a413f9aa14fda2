"""What path methods share: paths, baselines and completeness."""
