"""A lab's own plugin: recordings that it divides itself. The simulator stands in for the recordings."""

from ufe_core import ComponentSpec, hookimpl
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.source import SyntheticSource


class LabHeadset(SyntheticSource):
    def subjects(self):
        return super().subjects()[:7]

    def split(self):
        return {"train": self.subjects()[:5], "test": self.subjects()[5:]}


@hookimpl
def register_components(register):
    register(
        ComponentSpec(
            interface=1, kind="source", id="acme/lab", target=f"{__name__}:LabHeadset", config=SyntheticConfig,
            summary="Recordings of a lab",
        )
    )  # fmt: skip
