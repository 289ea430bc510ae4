"""Which RoIs to train on: functions of plain tensors, without a config, a model or state."""
