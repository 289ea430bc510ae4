"""Which RoIs to train on: from tensors, and the box predictor whose losses count."""
