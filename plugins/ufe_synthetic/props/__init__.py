"""What anny's head lacks: teeth and gums, eyelashes, glasses, and a hand in view."""

from ufe_synthetic.props.dentition import teeth
from ufe_synthetic.props.eyelashes import lashes
from ufe_synthetic.props.eyewear import glasses
from ufe_synthetic.props.hands import hand, hand_motion

__all__ = ["glasses", "hand", "hand_motion", "lashes", "teeth"]
