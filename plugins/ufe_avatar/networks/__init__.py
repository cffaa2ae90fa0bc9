"""The networks of the universal prior model (P§1.3), at any size; at the public size those of ava-256.

Within this package lengths are millimetres in ava-256's head axes (+x the subject's left, +y up, +z out of the face),
pixel centres are whole numbers, and inputs are normalised by the statistics of the training captures.
"""
