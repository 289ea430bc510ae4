"""Which RoIs are trained on: functions of plain tensors, without a config, a model or state."""
