"""The five interfaces of a UFE component: source, encoder, calibrator, decoder, metric."""
