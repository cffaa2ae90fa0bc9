"""Pre-training `none`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.pretraining import Pretraining, UnlabelledBatch
from ufe_pretraining.plugin import NoPretrainingConfig


class NoPretraining(Pretraining[NoPretrainingConfig]):
    """The first row of Table 4."""

    learns = "nothing"

    def losses(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, Tensor]:
        raise NotImplementedError("'none' is never trained")
