"""What torchvision makes of images; run by an interpreter that has it, never by this project's.

    python torchvision_samples.py CASES.json OUT.npz

CASES.json is a list of {"name", "file", "resize", "crop", "interpolation", "mean", "std"}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode


def main() -> None:
    samples = {}
    for case in json.loads(Path(sys.argv[1]).read_text()):
        steps = []
        if case["resize"] is not None:
            mode = InterpolationMode(case["interpolation"])
            steps.append(transforms.Resize(case["resize"], interpolation=mode))
        if case["crop"] is not None:
            steps.append(transforms.CenterCrop(case["crop"]))
        steps += [transforms.ToTensor(), transforms.Normalize(case["mean"], case["std"])]
        image = Image.open(case["file"]).convert("RGB")
        samples[case["name"]] = transforms.Compose(steps)(image).numpy()
    np.savez(sys.argv[2], **samples)


main()
