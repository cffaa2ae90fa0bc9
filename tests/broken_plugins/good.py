"""Nothing is wrong with this one: the others must not touch it. It prints, as careless plugins do."""

from pydantic import Field

from ufe_core import ComponentConfig, ComponentSpec, hookimpl

print("good plugin says hello")


class FoveaConfig(ComponentConfig):
    """Options of fovea."""

    cells: int = Field(16, ge=1, le=64, description="Side of the grid, in cells")


class Fovea:
    """Keeps what it was built with."""

    def __init__(self, config, *, device):
        self.config = config
        self.device = device


@hookimpl
def register_components(register):
    register(ComponentSpec(1, "encoder", "acme/fovea", "good:Fovea", FoveaConfig, "A fine encoder", reference="P§4"))
    register(ComponentSpec(1, "calibrator", "acme/linear", "good:Missing", ComponentConfig, "Its target is missing"))
    register(ComponentSpec(1, "metric", "acme/linear", "gone.away:Linear", ComponentConfig, "Its module is missing"))
    register(ComponentSpec(1, "source", "acme/rig", "good:Missing", ComponentConfig, "Its target is missing too"))
