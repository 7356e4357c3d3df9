"""Options of `fastseq train scenes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastseq.recipes.shared.config import RunConfig, at_least_one


@dataclass(frozen=True, kw_only=True)
class ScenesConfig(RunConfig):
    """Options of the recipe, beside those of `RunConfig`."""

    network: Literal["unet", "deeplab", "upsample", "transpose"] = "unet"
    """Architecture."""
    data: Literal["scenes", "pets", "voc"] = "scenes"
    """Digit scenes are made here; pets and voc are torchvision's."""
    data_dir: Path = Path("data")
    """Folder that holds oxford-iiit-pet or VOCdevkit."""
    download: bool = False
    """Fetch photographs that are missing."""
    scenes: int = 1600
    """Digit scenes to train on."""
    size: int | None = None
    """Height and width of the images; if not given 48, of photographs 128."""
    width: int = 16
    """Channels of the first block; of deeplab's head 4 times as many."""
    pretrained: bool = False
    """Begin deeplab's encoder with torchvision's ImageNet weights."""
    epochs: int = 12
    batch_size: int = 16
    lr: float = 4e-3
    weight_decay: float = 0.01
    out: Path = Path("runs/scenes")

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        super().__post_init__()
        at_least_one(self, "scenes", "size", "width")
