import pytest

from ufe_core.head import load_head
from ufe_core.registry import load_registry
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.source import SyntheticSource


@pytest.fixture(scope="session")
def synthetic():
    """The simulated source; it gives no capture of a held-out person: those are for measuring alone."""
    held_out = set(load_registry().split("synthetic", "test"))

    class TrainingPeople(SyntheticSource):
        def captures(self, subjects, *, session=0):
            assert not held_out & set(subjects), "a test opened a held-out subject"
            return super().captures(subjects, session=session)

    return TrainingPeople(SyntheticConfig())


@pytest.fixture(scope="session")
def head():
    return load_head()


@pytest.fixture(scope="session")
def decoder():
    from ufe_avatar.blendshape import BlendshapeDecoder
    from ufe_avatar.plugin import BlendshapeConfig

    return BlendshapeDecoder(BlendshapeConfig()).eval().requires_grad_(False)
