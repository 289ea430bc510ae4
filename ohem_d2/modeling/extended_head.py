"""The base class of mixins, for type checkers: what a mixin uses of the head that it extends."""

from typing import TYPE_CHECKING

# A mixin uses attributes and methods of the head that it is put before, which is one of
# Detectron2's. At run time it has no base class of its own: alone it is no head.
if TYPE_CHECKING:
    from detectron2.modeling.roi_heads import ROIHeads as ExtendedHead
else:
    ExtendedHead = object
