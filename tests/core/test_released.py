"""Encoders with released weights, by name."""

import pytest
import torch

from ufe_core.errors import ConfigError, UnknownComponentError
from ufe_core.registry import load_registry, packaged_file
from ufe_core.released import load_encoder
from ufe_core.weights import load_weights, sha256_file


def test_the_default_encoder_is_loaded_with_the_released_weights():
    encoder = load_encoder(device="cpu")
    (listed,) = [w for w in load_registry().weights if w.component == "ufe/univ"]
    assert encoder.needs.anchors[0] == "neutral" and not encoder.training
    kept = load_weights(packaged_file(listed.file))[0]
    own = encoder.state_dict()
    assert sha256_file(packaged_file(listed.file)) == listed.sha256
    assert all(torch.equal(own[name], value.to(own[name].dtype)) for name, value in kept.items())


def test_what_was_not_released_is_said_and_what_was():
    with pytest.raises(ConfigError, match=r"no released weights of 'ufe/univ' as it is asked for; .*'ufe train'"):
        load_encoder("univ", calibrator="pooling")
    with pytest.raises(UnknownComponentError, match="unvi"):
        load_encoder("unvi")
