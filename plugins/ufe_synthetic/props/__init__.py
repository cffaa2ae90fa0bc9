"""What anny's head lacks: round eyeballs, teeth and gums, eyelashes, glasses, a shirt, and a hand in view."""

from ufe_synthetic.props.dentition import teeth
from ufe_synthetic.props.eyeballs import eyeballs
from ufe_synthetic.props.eyelashes import lashes
from ufe_synthetic.props.eyewear import glasses
from ufe_synthetic.props.garment import shirt
from ufe_synthetic.props.hands import hand, hand_motion

__all__ = ["eyeballs", "glasses", "hand", "hand_motion", "lashes", "shirt", "teeth"]
