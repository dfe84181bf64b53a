"""Accuracy without training, across networks and sizes."""
