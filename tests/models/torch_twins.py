"""PyTorch twins of networks, with random weights: what they save, and their logits.

    python -m tests.models.torch_twins

writes tests/models/torch_weights/, so that the tests need no PyTorch. The names of the modules are
those of torchvision's ResNets and of timm's vision transformers.
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / 'torch_weights'
SHAPES = {'resnet8': (28, 28, 1), 'cnn': (12, 10, 3), 'resnet50': (16, 16, 3), 'vit': (8, 8, 3)}
CLASSES = 10


def images(name):
    return np.random.default_rng(1).integers(0, 256, (4, *SHAPES[name]), np.uint8)


def create(name):
    """Returns a twin in evaluation mode, with seeded weights and statistics."""
    import torch

    network = NETWORKS[name]().eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        arrays = network.state_dict()
        for array in (arrays[key] for key in sorted(arrays)):
            if array.is_floating_point():
                fan_in = np.prod(array.shape[1:])
                drawn = rng.normal(0, fan_in**-0.5, array.shape)
                if array.ndim == 1:  # mostly positive, so that activations do not vanish
                    drawn = np.abs(0.3 * drawn + 0.5)
                array.copy_(torch.from_numpy(drawn))
    return network


def logits(name):
    import torch

    pixels = torch.from_numpy(images(name)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return create(name)(pixels).numpy()


def _resnet8():
    """The small-image ResNet with 8 layers and shortcuts without parameters."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, channels, features, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, features, 3, stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(features)
            self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(features)
            self.stride, self.missing = stride, features - channels

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            shortcut = x[:, :, :: self.stride, :: self.stride]
            return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, 0, self.missing)))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 3, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(3)
            self.layer1 = nn.Sequential(Block(3, 3, 1))
            self.layer2 = nn.Sequential(Block(3, 6, 2))
            self.layer3 = nn.Sequential(Block(6, 12, 2))
            self.fc = nn.Linear(12, CLASSES)

        def forward(self, x):
            x = F.relu(self.bn1(self.conv1(x)))
            x = self.layer3(self.layer2(self.layer1(x)))
            return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))

    return ResNet()


def _cnn():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),  # channels first
        nn.Linear(5 * 3 * 2, 7),
        nn.LeakyReLU(),
        nn.Linear(7, CLASSES),
    )


def _resnet50():
    """The beginning of torchvision's ResNet-50, with few channels."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Bottleneck(nn.Module):
        def __init__(self, channels, width, stride, downsample):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(4 * width)
            self.downsample = None
            if downsample:
                self.downsample = nn.Sequential(
                    nn.Conv2d(channels, 4 * width, 1, stride, bias=False),
                    nn.BatchNorm2d(4 * width),
                )

        def forward(self, x):
            y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
            shortcut = x if self.downsample is None else self.downsample(x)
            return F.relu(self.bn3(self.conv3(y)) + shortcut)

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 4, 7, 2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(4)
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)
            self.layer1 = nn.Sequential(Bottleneck(4, 2, 1, True), Bottleneck(8, 2, 1, False))
            self.layer2 = nn.Sequential(Bottleneck(8, 3, 2, True))
            self.fc = nn.Linear(12, CLASSES)

        def forward(self, x):
            x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
            x = self.layer2(self.layer1(x))
            return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))

    return ResNet()


def _vit():
    """timm's vision transformer with one block of two heads."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(6, 18), nn.Linear(6, 6)

        def forward(self, x):
            n, tokens, _ = x.shape
            q, k, v = self.qkv(x).reshape(n, tokens, 3, 2, 3).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v)
            return self.proj(y.transpose(1, 2).reshape(n, tokens, 6))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x):
            return self.fc2(F.gelu(self.fc1(x)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.attn = nn.LayerNorm(6, eps=1e-6), Attention()
            self.norm2, self.mlp = nn.LayerNorm(6, eps=1e-6), Mlp()

        def forward(self, x):
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class PatchEmbed(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Conv2d(3, 6, 4, 4)

        def forward(self, x):
            return self.proj(x).flatten(2).transpose(1, 2)

    class VisionTransformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 6))
            self.pos_embed = nn.Parameter(torch.zeros(1, 5, 6))
            self.patch_embed = PatchEmbed()
            self.blocks = nn.Sequential(Block())
            self.norm, self.head = nn.LayerNorm(6, eps=1e-6), nn.Linear(6, CLASSES)

        def forward(self, x):
            x = self.patch_embed(x)
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
            return self.head(self.norm(self.blocks(x))[:, 0])

    return VisionTransformer()


NETWORKS = {'resnet8': _resnet8, 'cnn': _cnn, 'resnet50': _resnet50, 'vit': _vit}


def main():
    import torch
    from safetensors.torch import save_file

    FOLDER.mkdir(exist_ok=True)
    for name in NETWORKS:
        save_file(create(name).state_dict(), FOLDER / f'{name}.safetensors')
    versions = f'PyTorch {torch.__version__}, NumPy {np.__version__}'
    np.savez(FOLDER / 'logits.npz', versions=versions, **{name: logits(name) for name in NETWORKS})


if __name__ == '__main__':
    main()
