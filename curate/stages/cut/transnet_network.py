"""The network of TransNet V2 (Soucek and Lokoc, 2020), with the names of its released weights.

Legend: b windows, t frames, c channels, h and w pixels, n pixels of a frame or frames around one.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

HEIGHT_PX, WIDTH_PX = 27, 48
_LOOKUP = 101
"""Each frame is compared with so many around it, itself in the middle."""
_FILTERS = (16, 32, 64)
_DILATIONS = (1, 2, 4, 8)


class TransNetV2(nn.Module):
    """uint8 (B, T, 27, 48, 3), R G B -> logits float32 (B, T) that a frame is the last before a change of shot.

    Built for the released weights: two convolution cells in each of three blocks, colour histograms and frame
    similarities beside them. The second head, which marks all frames of a change, is loaded and not used.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *(4 * n for n in _FILTERS))
        self.SDDCNN = nn.ModuleList(_Block(inputs[i], n) for i, n in enumerate(_FILTERS))
        self.frame_sim_layer = _FrameSimilarity(4 * sum(_FILTERS))
        self.color_hist_layer = _ColourHistograms()
        self.fc1 = nn.Linear(4 * _FILTERS[-1] * 3 * 6 + 2 * 128, 1024)
        self.cls_layer1 = nn.Linear(1024, 1)
        self.cls_layer2 = nn.Linear(1024, 1)

    def forward(self, frames_bthw3: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x_bcthw = frames_bthw3.permute(0, 4, 1, 2, 3).float() / 255
        blocks = []
        for block in self.SDDCNN:
            x_bcthw = block(x_bcthw)
            blocks.append(x_bcthw)
        flat_btc = x_bcthw.permute(0, 2, 3, 4, 1).flatten(2)
        parts = (self.color_hist_layer(frames_bthw3), self.frame_sim_layer(blocks), flat_btc)
        return self.cls_layer1(functional.relu(self.fc1(torch.cat(parts, dim=2))))[..., 0]


class _Block(nn.Module):
    """Two cells, the first one's result added to the second's, then means of 2 x 2 pixels."""

    def __init__(self, n_in: int, filters: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([_Cell(n_in, filters), _Cell(4 * filters, filters)])

    def forward(self, x_bcthw: torch.Tensor) -> torch.Tensor:
        first = functional.relu(self.DDCNN[0](x_bcthw))
        return functional.avg_pool3d(functional.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


class _Cell(nn.Module):
    """Four convolutions that reach 1, 2, 4 and 8 frames far, side by side."""

    def __init__(self, n_in: int, filters: int) -> None:
        super().__init__()
        for dilation in _DILATIONS:
            self.add_module(f"Conv3D_{dilation}", _Convolution(n_in, filters, dilation))
        self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)

    def forward(self, x_bcthw: torch.Tensor) -> torch.Tensor:
        parts = [self.get_submodule(f"Conv3D_{dilation}")(x_bcthw) for dilation in _DILATIONS]
        return self.bn(torch.cat(parts, dim=1))


class _Convolution(nn.Module):
    """Over the picture, then over time."""

    def __init__(self, n_in: int, filters: int, dilation: int) -> None:
        super().__init__()
        picture = nn.Conv3d(n_in, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
        along = (dilation, 1, 1)
        time = nn.Conv3d(2 * filters, filters, (3, 1, 1), dilation=along, padding=(dilation, 0, 0), bias=False)
        self.layers = nn.ModuleList([picture, time])

    def forward(self, x_bcthw: torch.Tensor) -> torch.Tensor:
        return self.layers[1](self.layers[0](x_bcthw))


class _FrameSimilarity(nn.Module):
    """How like the learned features of neighbouring frames are."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.projection = nn.Linear(n_in, 128)
        self.fc = nn.Linear(_LOOKUP, 128)

    def forward(self, blocks: list[torch.Tensor]) -> torch.Tensor:
        means_btc = torch.cat([x_bcthw.mean(dim=(3, 4)) for x_bcthw in blocks], dim=1).transpose(1, 2)
        return functional.relu(self.fc(_likeness(self.projection(means_btc))))


class _ColourHistograms(nn.Module):
    """How like the colours of neighbouring frames are, by histograms of 8 x 8 x 8 bins."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(_LOOKUP, 128)

    def forward(self, frames_bthw3: torch.Tensor) -> torch.Tensor:
        r, g, b = (frames_bthw3 >> 5).long().flatten(2, 3).unbind(dim=3)
        bins_btn = (r << 6) + (g << 3) + b
        counts_btc = torch.zeros(*bins_btn.shape[:2], 512).scatter_add_(2, bins_btn, torch.ones(bins_btn.shape))
        return functional.relu(self.fc(_likeness(counts_btc)))


def _likeness(x_btc: torch.Tensor) -> torch.Tensor:
    """Cosine of each frame's vector with those of the _LOOKUP frames around it (0 beyond the window): (B, T, N)."""
    x_btc = functional.normalize(x_btc, dim=2)
    half = _LOOKUP // 2
    all_btt = functional.pad(x_btc @ x_btc.transpose(1, 2), (half, half))
    n = x_btc.shape[1]
    around_tn = torch.arange(n)[:, None] + torch.arange(_LOOKUP)
    return all_btt.gather(2, around_tn.expand(len(x_btc), n, _LOOKUP))
