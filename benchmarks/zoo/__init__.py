"""Networks of torchvision and timm, exported to ONNX and pruned, each in processes of its own."""
