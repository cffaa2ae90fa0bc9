import os

import pytest

# Workers share the cores, one thread each: two threads that wait for each other on busy cores are far slower. It is set
# before anything imports torch, and processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
# No test asks a hub for weights; without this, one that tries what happens then waits for the network.
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(items):
    """Modules with slow tests come first: begun last, one would keep a worker busy while the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Where to compute: the CPU, and a GPU where there is one."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return torch.device(request.param)


@pytest.fixture
def ufe(capsys):
    """The command line: arguments to exit code, standard output and standard error."""
    from ufe_core.cli.main import main

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run
