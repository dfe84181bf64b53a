"""The `ort-training` engine: gradients by onnxruntime-training, which runs in its own process.

`engine` is the parent's face, `process` and `wire` the way to the child, `child` and `gradients`
what runs there; `trainable` and `rewrites` bring a graph into a form that runtime differentiates.
"""
