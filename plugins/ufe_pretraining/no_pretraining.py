"""Pre-training `none`."""

from __future__ import annotations

from ufe_core.interfaces.pretraining import Pretraining
from ufe_pretraining.plugin import NoPretrainingConfig


class NoPretraining(Pretraining[NoPretrainingConfig]):
    """The first row of Table 4."""

    learns = "nothing"
