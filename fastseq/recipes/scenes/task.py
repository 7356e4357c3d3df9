"""The segmentation networks as a Lightning task."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from fastseq.models import ConvTransposeNet, ConvUpsampleNet, ResNetDeepLab, UNet
from fastseq.recipes.scenes.datasets import CLASSES, IGNORE, Sample
from fastseq.recipes.shared.optimizers import warmup_cosine

NETWORKS = ("unet", "deeplab", "upsample", "transpose")
# Examples of the picture that is drawn at the end.
SHOWN = 6


def build_network(
    network: str, num_classes: int, width: int, native: bool = False, pretrained: bool = False
) -> nn.Module:
    """Return a segmentation network for images of three channels.

    Args:
        network: ``"unet"``, ``"deeplab"``, ``"upsample"`` or ``"transpose"``.
        num_classes: Logits of every pixel.
        width: Channels of the first block; of the deeplab's head four times as many.
        native: Build from torch.nn.
        pretrained: Begin the deeplab's encoder with torchvision's weights.

    Raises:
        ValueError: If there is no such network, or it has no pretrained weights.
    """
    if network not in NETWORKS:
        raise ValueError(f"network is {network!r}, expected one of {', '.join(NETWORKS)}")
    if pretrained and network != "deeplab":
        raise ValueError(f"network is {network!r}, and pretrained weights are for deeplab only")
    if network == "unet":
        return UNet(3, num_classes, width, native=native)
    if network == "deeplab":
        weights = "DEFAULT" if pretrained else None
        return ResNetDeepLab(num_classes, weights=weights, aspp_channels=4 * width, native=native)
    build = ConvUpsampleNet if network == "upsample" else ConvTransposeNet
    return build(num_classes, width=width, native=native)


class Segmenter(LightningModule):
    """Label pixels: cross-entropy, AdamW, warm-up and cosine decay, mean IoU.

    Args:
        network: See `build_network`, as for the next two.
        width: Channels of the first block.
        native: Build from torch.nn.
        data: Name of the data set, which says what classes there are.
        pretrained: Begin with torchvision's weights.
        lr: Peak learning rate.
        weight_decay: AdamW's.
    """

    def __init__(
        self,
        network: str = "unet",
        width: int = 16,
        native: bool = False,
        data: str = "scenes",
        pretrained: bool = False,
        lr: float = 4e-3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.weight_decay = weight_decay
        classes = len(CLASSES[data])
        model = build_network(network, classes, width, native, pretrained)
        # Convolutions on the CPU are faster with the channels of a pixel side by side.
        self.model = model.to(memory_format=torch.channels_last)
        # Over all pixels of all images; torchmetrics' MeanIoU averages over images first.
        self.val_iou = MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORE)
        self.test_iou = MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORE)
        self.val_accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE)
        self.test_accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE)
        self.examples: list[tuple[Tensor, Tensor, Tensor]] = []
        self.pixels = torch.zeros(classes, dtype=torch.long)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, classes, H, W)`` of images ``(B, 3, H, W)``."""
        logits: Tensor = self.model(images.to(memory_format=torch.channels_last))
        return logits

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, truth = batch
        loss = F.cross_entropy(self(images), truth, ignore_index=IGNORE)
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(truth)
        )
        return loss

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        """Log loss, mean IoU and pixel accuracy of a validation batch."""
        images, truth = batch
        logits = self(images)
        read = logits.argmax(dim=1)  # (B, H, W)
        self.val_iou(read, truth)
        self.val_accuracy(read, truth)
        loss = F.cross_entropy(logits, truth, ignore_index=IGNORE)
        self.log("val_loss", loss, prog_bar=True, sync_dist=True, batch_size=len(truth))
        self.log("val_iou", self.val_iou, prog_bar=True, batch_size=len(truth))
        self.log("val_accuracy", self.val_accuracy, batch_size=len(truth))

    def on_test_start(self) -> None:
        """Forget what an earlier test kept."""
        self.examples.clear()
        self.pixels.zero_()

    def test_step(self, batch: Sample, batch_idx: int) -> None:
        """Log mean IoU and pixel accuracy, count the classes, and keep the first images."""
        images, truth = batch
        read = self(images).argmax(dim=1)  # (B, H, W)
        self.test_iou(read, truth)
        self.test_accuracy(read, truth)
        self.log("test_iou", self.test_iou, batch_size=len(truth))
        self.log("test_accuracy", self.test_accuracy, batch_size=len(truth))
        seen = truth[truth != IGNORE].flatten().cpu()
        self.pixels += seen.bincount(minlength=len(self.pixels))
        kept = [part[: SHOWN - len(self.examples)].cpu() for part in (images, truth, read)]
        self.examples += list(zip(*kept, strict=True))

    def baseline(self) -> tuple[str, float, float]:
        """Return the test set's most frequent class, and the mean IoU and accuracy of it alone.

        To say that class everywhere is right on its pixels and on no others; of the classes that
        occur it alone has an IoU above zero.
        """
        share = float(self.pixels.max() / self.pixels.sum())
        name = CLASSES[self.hparams["data"]][int(self.pixels.argmax())]
        return name, share / int((self.pixels > 0).sum()), share

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW whose rate rises linearly, then falls along half a cosine to zero."""
        return warmup_cosine(self, self.lr, self.weight_decay)
