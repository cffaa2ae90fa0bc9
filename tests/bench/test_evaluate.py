"""What the harness asks of a decoder."""

import torch

from ufe_avatar.blendshape import BlendshapeDecoder
from ufe_avatar.plugin import BlendshapeConfig
from ufe_bench.evaluate import Stage
from ufe_core.head import load_head
from ufe_core.plugins import catalogue

AHEAD = torch.tensor([0.0, 0, 1, 0, 0, 1])


class Counting(BlendshapeDecoder):
    """Counts what it decodes and renders."""

    decoded = rendered = 0

    def _decode(self, expression, gaze, identity):
        self.decoded += len(gaze)
        return super()._decode(expression, gaze, identity)

    def render(self, avatar, camera, *, mask=None):
        self.rendered += len(avatar.geometry)
        return super().render(avatar, camera, mask=mask)


def test_equal_codes_are_driven_once_and_give_what_each_alone_gives():
    decoder = Counting(BlendshapeConfig()).eval()
    camera, mask = decoder.frontal_camera(32), decoder.face_mask(32)
    metric = catalogue().create("metric", "photometric_l1", topology=decoder.topology, face_mask=mask)
    stage = Stage(decoder, {"photometric_l1": metric}, camera, mask, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(1, 3, 64, 64, generator=generator)
    identity = decoder.identity(texture, torch.from_numpy(load_head().template)[None])
    few = torch.rand(3, decoder.code_space.size, generator=generator)
    rows = torch.tensor([2, 0, 0, 1, 2, 2, 0])
    together = stage.drive(identity, few[rows], AHEAD.expand(7, -1), renders=True)
    assert (decoder.decoded, decoder.rendered) == (3, 3)
    for n, row in enumerate(rows.tolist()):
        alone = stage.drive(identity, few[row : row + 1], AHEAD[None], renders=True)
        torch.testing.assert_close(together.geometry[n], alone.geometry[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(together.image[n], alone.image[0], atol=1e-5, rtol=0)
    assert not torch.equal(together.image[0], together.image[1])
    before = decoder.decoded
    stage.drive(identity, few, AHEAD.expand(3, -1), renders=False)
    assert (decoder.decoded, decoder.rendered) == (before + 3, before), "nothing is rendered that nobody looks at"
