"""Speed and memory of scoring and of what comes out, as ratios of one run."""
