"""The six interfaces of a UFE component: source, detector, encoder, calibrator, decoder, metric."""
