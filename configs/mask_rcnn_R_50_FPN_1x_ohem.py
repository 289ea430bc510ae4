"""Detectron2's Mask R-CNN in its Python form (LazyConfig), with mining."""

from detectron2 import model_zoo

from ohem_d2 import with_ohem

_plain = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
dataloader, lr_multiplier, model, optimizer, train = (
    _plain[key] for key in ("dataloader", "lr_multiplier", "model", "optimizer", "train")
)

# Options by their names: with_ohem(model.roi_heads, nms_thresh=0.7, ...).
model.roi_heads = with_ohem(model.roi_heads)
