"""Who computes the gradients: engines with one interface and equal scores."""
