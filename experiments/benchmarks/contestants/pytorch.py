"""PyTorch, eager and compiled; images and parameters are tensors in memory."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks.contestants import CLASSES, LEARNING_RATE
from experiments.benchmarks.contestants.contestant import EVAL_BATCH, PADDING, Contestant


class CNN(nn.Module):
    def __init__(self, image_shape, features, kernel_size, padding, hidden):
        super().__init__()
        side, _, channels = image_shape
        padded = kernel_size // 2 if padding == 'SAME' else 0
        self.convolutions = nn.ModuleList()
        for width in features:
            self.convolutions.append(nn.Conv2d(channels, width, kernel_size, padding=padded))
            channels, side = width, (side + 2 * padded - kernel_size + 1) // 2
        widths = [channels * side * side, *hidden, CLASSES]
        self.dense = nn.ModuleList(
            nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)
        )
        self.flattened = (side, side, channels)

    def forward(self, x):
        for convolution in self.convolutions:
            x = functional.max_pool2d(functional.relu(convolution(x)), 2)
        x = x.flatten(1)
        for dense in self.dense[:-1]:
            x = functional.relu(dense(x))
        return self.dense[-1](x)


class Block(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.missing, self.stride = width - channels, 1 if width == channels else 2
        self.conv1 = nn.Conv2d(channels, width, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.missing))
        return functional.relu(y + shortcut)


class ResNet(nn.Module):
    def __init__(self, image_shape, depth):
        super().__init__()
        self.conv = nn.Conv2d(image_shape[-1], 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        widths = [16] + [width for width in (16, 32, 64) for _ in range((depth - 2) // 6)]
        self.blocks = nn.Sequential(*(Block(*pair) for pair in itertools.pairwise(widths)))
        self.dense = nn.Linear(64, CLASSES)

    def forward(self, x):
        x = self.blocks(functional.relu(self.norm(self.conv(x))))
        return self.dense(x.mean(dim=(2, 3)))


class Torch(Contestant):
    compiled = bfloat16 = channels_last = False

    def __init__(self, *args):
        super().__init__(*args)
        kind = ResNet if 'depth' in self.network else CNN
        model = kind(self.images.shape[1:], **self.network)
        self._copy_params(model)
        self.images, self.test_images = (
            torch.from_numpy(array.transpose(0, 3, 1, 2).copy())
            for array in (self.images, self.test_images)
        )
        self.labels = torch.from_numpy(self.labels).long()
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
            self.images = self.images.to(memory_format=torch.channels_last)
            self.test_images = self.test_images.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        self.network_module = model
        self.model = torch.compile(model) if self.compiled else model
        model.eval()
        with torch.no_grad():
            logits = self._logits(self.images[:EVAL_BATCH]).float()
            self.loss = functional.cross_entropy(logits, self.labels[:EVAL_BATCH]).item()

    def _copy_params(self, model):
        """Copies kernels, in the order of layers, and what belongs to each kind of layer."""
        count = {'Conv': 0, 'BatchNorm': 0, 'Dense': 0}
        kinds = {nn.Conv2d: 'Conv', nn.BatchNorm2d: 'BatchNorm', nn.Linear: 'Dense'}
        for layer in model.modules():
            if type(layer) not in kinds:
                continue
            kind = kinds[type(layer)]
            name = f'{kind}_{count[kind]}'
            count[kind] += 1
            weight = self.params[f'{name}/{"scale" if kind == "BatchNorm" else "kernel"}']
            if name == 'Dense_0' and hasattr(model, 'flattened'):
                weight = weight.reshape(*model.flattened, -1).transpose(2, 0, 1, 3)
                weight = weight.reshape(-1, weight.shape[-1])
            axes = {'Conv': (3, 2, 0, 1), 'BatchNorm': (0,), 'Dense': (1, 0)}[kind]
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weight.transpose(axes).copy()))
                if layer.bias is not None:
                    layer.bias.copy_(torch.from_numpy(self.params[f'{name}/bias']))

    def _logits(self, images):
        with torch.autocast('cpu', torch.bfloat16, enabled=self.bfloat16):
            return self.model(images)

    def _augment(self, images):
        offsets, mirrored = map(torch.from_numpy, self.draw_augmentation())
        images = functional.pad(images, (PADDING,) * 4)
        reach = torch.arange(images.shape[-1] - 2 * PADDING)
        rows, columns = (offset[:, None] + reach for offset in offsets)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        numbers = torch.arange(len(images))[:, None, None]
        images = images[numbers, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        kept = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=kept)

    def step(self, rows):
        rows = torch.from_numpy(rows)
        images = self.images[rows]
        if self.augmented:
            images = self._augment(images)
        self.network_module.train()
        loss = functional.cross_entropy(self._logits(images).float(), self.labels[rows])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def wait(self):
        pass  # PyTorch computes as it goes

    def predict(self, images):
        self.network_module.eval()
        with torch.no_grad():
            return self._logits(images).argmax(-1).numpy()


class TorchCompile(Torch):
    compiled = True


class TorchChannelsLast(Torch):
    channels_last = True


class TorchBfloat16(TorchChannelsLast):
    bfloat16 = True


class TorchCompileBfloat16(TorchBfloat16):
    compiled = True
