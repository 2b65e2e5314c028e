"""A residual network for photographs of 32×32 pixels, with three sizes of images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """Two convolutions with batch norm, added to the input or to its projection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(branch + self.downsample(x))


class ResNet(nn.Module):
    """Logits of the classes, from images of shape (batch, 3, 32, 32).

    Args:
        classes: the number of classes.
        width: the channels of the first size of images; the second and third have two and four times as many.
        depth: the number of blocks at each size.
    """

    def __init__(self, classes: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        channels = width
        for size in range(3):
            for index in range(depth):
                outputs = width * 2**size
                blocks.append(BasicBlock(channels, outputs, 2 if size and not index else 1))
                channels = outputs
        self.layers = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        return self.fc(self.layers(x).mean(dim=(-2, -1)))
