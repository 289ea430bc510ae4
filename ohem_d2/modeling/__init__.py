"""RoI heads that mine, and the parts of models that Detectron2 lacks."""
