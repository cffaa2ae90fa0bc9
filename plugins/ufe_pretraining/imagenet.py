"""Pre-training `imagenet` (P§6.8): the encoder's timm backbone begins from weights for photographs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from ufe_core.errors import ConfigError
from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.pretraining import Pretraining
from ufe_core.weights import sha256_file
from ufe_pretraining.plugin import ImageNetConfig


class ImageNet(Pretraining[ImageNetConfig]):
    """Each region's network takes them; what stands between phi_exp and phi_cal begins as without pre-training."""

    learns = "given"
    code_modules = ("ufe_pretraining.imagenet",)
    weights_option = "file"

    @classmethod
    def weights_sha256(cls, config: ImageNetConfig) -> str | None:
        """Of the file; None where the hub is asked."""
        if config.file == "hub":
            return None
        return sha256_file(_file(config))

    def initialise(self, encoder: Encoder[Any]) -> dict[str, Any]:
        facts: dict[str, Any] = {}

        def load(name: str, options: Mapping[str, Any]) -> Mapping[str, Tensor]:
            weights = self._load(name, options, facts)
            tensors = {key: value.contiguous() for key, value in weights.items()}
            facts["tensors_sha256"] = hashlib.sha256(save(tensors)).hexdigest()  # wherever they came from
            return weights

        encoder.load_backbone(load)
        return facts

    def _load(self, name: str, options: Mapping[str, Any], facts: dict[str, Any]) -> Mapping[str, Tensor]:
        if self.config.file != "hub":
            path = _file(self.config)
            facts["weights"] = sha256_file(path)
            try:
                return load_file(path)
            except Exception as error:  # safetensors' own, which it does not document
                raise ConfigError(f"{path} is no safetensors file: {error}. Get it from timm's hub again.") from error
        if options:
            changed = ", ".join(sorted(options))
            raise ConfigError(
                f"There are no ImageNet weights for {name!r} with another {changed}: take a model as it is, e.g. "
                "--set encoder.backbone=mobilenetv3_large_100 --set encoder.backbone_options={}"
            )
        return _from_hub(name, facts)


def _file(config: ImageNetConfig) -> Path:
    path = Path(config.file).expanduser()
    if not path.is_file():
        raise ConfigError(f"There is no weights file {path}. Give a .safetensors file of the encoder's timm model.")
    return path


def _from_hub(name: str, facts: dict[str, Any]) -> Mapping[str, Tensor]:
    import timm

    known = timm.models.get_pretrained_cfg(name)
    if known is None or not (known.hf_hub_id or known.url):
        raise ConfigError(f"timm has no pretrained weights for {name!r}; choose another --set encoder.backbone=NAME.")
    hub = logging.getLogger("huggingface_hub")
    before = hub.level
    hub.setLevel(logging.ERROR)  # it tells of each of its retries
    try:
        weights: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # whatever the network does
        where = f"https://huggingface.co/{known.hf_hub_id}" if known.hf_hub_id else known.url
        raise ConfigError(
            f"timm's weights for {name!r} cannot be fetched ({type(error).__name__}). Get model.safetensors from "
            f"{where} and give --set pretraining.file=FILE."
        ) from error
    finally:
        hub.setLevel(before)
    facts["weights"] = known.hf_hub_id or known.url
    return weights
