"""Detector `heatmap`: a network for each face region, shared by the left and the mirrored right cameras (P§2.3)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ufe_core.errors import ArtifactError, ConfigError
from ufe_core.interfaces.detector import KeypointDetector, KeypointNames
from ufe_core.registry import packaged_file, released_component
from ufe_core.types import Detections
from ufe_core.weights import load_weights, sha256_file
from ufe_keypoints.network import Networks, points_a_view
from ufe_keypoints.plugin import HeatmapConfig
from ufe_keypoints.training import AugmentedHeatmapTraining, HeatmapTraining


class HeatmapDetector(KeypointDetector[HeatmapConfig]):
    """Cameras come as left eye, right eye, left mouth, right mouth, as in `univ`."""

    code_modules = (
        "ufe_keypoints.heatmap", "ufe_keypoints.network", "ufe_keypoints.point_model", "ufe_core.face_encoder",
    )  # fmt: skip
    trained_by: ClassVar = HeatmapTraining
    component: ClassVar[str] = "ufe/heatmap"

    def __init__(self, config: HeatmapConfig) -> None:
        super().__init__(config)
        path, sha256 = self._weights_of(config)
        tensors, spec = load_weights(path, sha256=sha256)
        if spec["component"] != self.component:
            raise ArtifactError(
                f"{path} holds weights of {spec['component']!r}, not of '{self.component}'. "
                f"Name a file that 'ufe train --detector {self.component.partition('/')[2]} --out' wrote."
            )
        try:
            self.size = int(spec["size"])
            self.keypoints = tuple(
                KeypointNames(one["camera"], tuple(one["names"]), tuple(one["vertices"]), tuple(one["pupils"]))
                for one in spec["keypoints"]
            )
            self.networks = Networks(
                points_a_view(self.keypoints, self.trained_by.role), spec["widths"], spec.get("reach", 0),
                spec.get("together", False), spec.get("point_model", False),
            )  # fmt: skip
            self.networks.load_state_dict({
                name: value.float() if value.is_floating_point() else value for name, value in tensors.items()
            })  # fmt: skip
        except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"{path} does not fit '{self.component}': {str(error).splitlines()[-1]}") from error
        self.eval()

    @classmethod
    def weights_sha256(cls, config: HeatmapConfig) -> str:
        path, sha256 = cls._weights_of(config)
        return sha256 or sha256_file(path)

    @classmethod
    def _weights_of(cls, config: HeatmapConfig) -> tuple[Path, str | None]:
        """The file to load, and what it must hash to where that is known."""
        if config.weights != "released":
            return Path(config.weights).expanduser(), None
        released = released_component("detector", cls.component)
        return packaged_file(released.file), released.sha256

    def train(self, mode: bool = True) -> HeatmapDetector:
        """It stays as it was trained, whatever it is part of."""
        super().train(False)
        return self

    def _detect(self, images: Tensor) -> Detections:
        return Detections(*self.networks.detect(images, drawn=self.config.point_model))


class AugmentedHeatmapDetector(HeatmapDetector):
    """The same for the cameras that only a training headset has, in the same order: P§6.6 needs them."""

    trained_by: ClassVar = AugmentedHeatmapTraining
    component = "ufe/heatmap_augmented"
