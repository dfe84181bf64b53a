"""Name and version of the tool, as they stand in reports and in the models it writes."""

TOOL = "onnx-filter-pruner"
VERSION = "0.1.0"
