"""An encoder of few operations, for trainings that are not about their network: a step takes a third of the time."""

SMALL_ENCODER = {"backbone": "resnet10t", "backbone_options": {"channels": [16, 32, 48, 64], "stem_width": 8}}
