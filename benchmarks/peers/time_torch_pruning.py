"""Times what Torch-Pruning's Taylor importance needs of a batch: forward and backward.

    python time_torch_pruning.py MODEL FOLDER THREADS

FOLDER has bundle.npz. A line "ready", then for every number on standard input a JSON list of as
many seconds.
"""

import json
import sys
import time
from pathlib import Path

import child
import onnx
import torch
from onnx_modules import GraphModule, with_plain_constants
from torch.nn import functional


def main() -> None:
    path, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    _, images, labels = child.read_bundle(Path(folder))
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    network = GraphModule(with_plain_constants(onnx.load(path))).eval()
    network(x).sum().backward()  # fails here where an operator is not known
    print("ready", flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            network.zero_grad()
            functional.cross_entropy(network(x), y, reduction="sum").backward()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
