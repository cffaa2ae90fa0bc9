import os

import pytest

# Workers share the cores, one thread each: two threads that wait for each other on busy cores are far slower. It is set
# before anything imports torch, and processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"


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
