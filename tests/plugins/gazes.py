"""Where eyes look."""

import numpy as np
import torch

AHEAD = torch.tensor([[0.0, 0, 1, 0, 0, 1]])


def directions(*angles_deg):
    """Unit vectors [N, 3] of (azimuth, altitude)."""
    azimuth, altitude = np.radians(angles_deg).T
    vectors = [np.sin(azimuth) * np.cos(altitude), -np.sin(altitude), np.cos(azimuth) * np.cos(altitude)]
    return torch.from_numpy(np.stack(vectors, -1).astype(np.float32))
