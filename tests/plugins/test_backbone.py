import pytest
import timm
import torch
from torch import nn

from ufe_core.errors import ConfigError
from ufe_universal.backbone import split_backbone

FAMILIES = ["mobilenetv3_small_050", "mobilenetv3_small_100", "mobilenetv3_large_100", "resnet10t", "resnet18",
            "efficientnet_b0"]  # fmt: skip


def restless(name):
    """A timm network in which no branch is silent: normalisation statistics and gains are drawn too."""
    torch.manual_seed(0)
    network = timm.create_model(name, in_chans=1, num_classes=0).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


@pytest.mark.parametrize("name", FAMILIES)
def test_head_and_tail_are_the_uncut_network(name, monkeypatch):
    network = restless(name)
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: network)
    split = split_backbone(name, stride=16)
    images = torch.randn(2, 1, 96, 96)
    with torch.inference_mode():
        expected = network.eval()(images)
        maps = split.head.eval()(images)
        found = split.tail.eval()(maps)
    assert maps.shape == (2, split.channels, 6, 6)
    assert found.shape == (2, split.features) == tuple(expected.shape)
    assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert float(expected.std()) > 0


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("cells", [2, 3])
def test_cells_keep_a_grid_of_features(name, cells):
    one, grid = split_backbone(name, stride=16), split_backbone(name, stride=16, cells=cells)
    assert grid.features == one.features * cells**2


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_cut_is_at_the_stride_asked_for(stride):
    split = split_backbone("mobilenetv3_small_100", stride=stride)
    assert split.head.eval()(torch.zeros(1, 1, 192, 192)).shape[-1] == 192 // stride
    assert split.head.training is False and split.tail.training is True


def test_a_network_that_does_not_exist_or_cannot_be_cut_is_refused():
    with pytest.raises(ConfigError, match=r"no model 'mobilenetv3_larg_100'. Did you mean mobilenetv3_large_100"):
        split_backbone("mobilenetv3_larg_100", stride=16)
    with pytest.raises(ConfigError, match="'vit_tiny_patch16_224' cannot be cut in two; use a MobileNetV3"):
        split_backbone("vit_tiny_patch16_224", stride=16)
    with pytest.raises(ConfigError, match="timm cannot build 'resnet18' with options {'chanels': 3}"):
        split_backbone("resnet18", stride=16, options={"chanels": 3})
