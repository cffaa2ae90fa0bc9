"""Keypoints of headset images: the detector that every keypoint baseline shares (P§6.6, P§10)."""
