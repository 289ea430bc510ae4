import warnings

# Detectron2 scripts a few functions on import, which torch announces as deprecated.
warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
