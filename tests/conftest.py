import pytest


@pytest.fixture(scope="module")
def one_thread():
    """On two busy cores, two threads that wait for each other are far slower than one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
