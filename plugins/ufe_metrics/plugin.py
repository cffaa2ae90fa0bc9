"""Registers the five errors of P§8, and three of speech. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class MetricConfig(ComponentConfig):
    """These metrics have no options."""


_METRICS = (
    (
        "photometric_l1",
        "errors:PhotometricL1",
        "Mean pixel error of the frontal rendering inside the face mask",
        "P§8.1",
    ),
    ("mesh_l2", "errors:MeshL2", "Mean vertex distance over the face", "P§8.2"),
    ("lf_mesh_l2", "errors:LowerFaceMeshL2", "Mean vertex distance over the lower face", "P§8.3"),
    ("mouth_shape", "errors:MouthShape", "Error of the mouth's width plus error of its opening", "P§8.4"),
    ("gaze", "errors:Gaze", "Angle between gaze directions, mean of both eyes", "P§8.5"),
    ("jitter", "speech:Jitter", "Trembling of the face that the truth does not have, in clips of speech", ""),
    ("missed_closures", "speech:MissedClosures", "Frames of speech with shut lips, shown open", ""),
    ("false_closures", "speech:FalseClosures", "Frames of speech with open lips, shown shut", ""),
)


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the metrics."""
    for name, target, summary, reference in _METRICS:
        register(
            ComponentSpec(
                interface=1,
                kind="metric",
                id=f"ufe/{name}",
                target=f"ufe_metrics.{target}",
                config=MetricConfig,
                summary=summary,
                reference=reference,
            )
        )
