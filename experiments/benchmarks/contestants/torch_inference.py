"""PyTorch: image files to rows of a CSV file, with a DataLoader, as its documentation recommends.

`inference.py` starts this process with a JSON object: `network` (fields of `pytorch.CNN`),
`image_shape`, `batch_size`, `workers`, `files` (a text file of names), `out`. For each line on
standard input it predicts all files once, and answers with the processor time that it took.
"""

import csv
import json
import os
import sys

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from experiments.benchmarks.contestants.pytorch import CNN

TOP = 3


class Files(Dataset):
    """Images uint8[C, H, W], resized as `data.resize='pad'` does it."""

    def __init__(self, files, size):
        self.files, self.size = files, size

    def __len__(self):
        return len(self.files)

    def __getitem__(self, number):
        with Image.open(self.files[number]) as image:
            image = ImageOps.exif_transpose(image).convert('RGB')
        image = ImageOps.pad(image, self.size, Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def predict(model, files, size, batch_size, workers, out):
    loader = DataLoader(Files(files, size), batch_size=batch_size, num_workers=workers)
    place = 0
    with open(out, 'w', newline='') as file, torch.inference_mode():
        rows = csv.writer(file)
        for images in loader:
            images = images.to(memory_format=torch.channels_last).float() / 255
            found = torch.softmax(model((images - 0.5) / 0.25), 1).topk(TOP)
            names = files[place : place + len(images)]
            tops = zip(names, found.indices.tolist(), found.values.tolist(), strict=True)
            for name, labels, values in tops:
                rows.writerow([name, *labels, *values])
            place += len(images)


def main():
    task = json.loads(sys.argv[1])
    height, width, _ = task['image_shape']
    model = CNN(task['image_shape'], **task['network']).eval()
    model = model.to(memory_format=torch.channels_last)
    with open(task['files']) as file:
        files = file.read().splitlines()
    for _ in sys.stdin:
        before = sum(os.times()[:4])
        predict(model, files, (width, height), task['batch_size'], task['workers'], task['out'])
        used = sum(os.times()[:4]) - before
        print(json.dumps({'processor_seconds': used, 'torch': torch.__version__}), flush=True)


if __name__ == '__main__':
    main()
