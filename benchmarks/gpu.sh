#!/usr/bin/env bash
# What needs a GPU, in ten minutes at most: its tests, then what mining costs a step there.
#
#     bash benchmarks/gpu.sh
#     PAGE=output/gpu.md ARGUMENTS="--size 64 64 --rounds 1 -- MODEL.DEVICE cpu" bash benchmarks/gpu.sh
#
# The tables are added to docs/cost/gpu.md, whose old sections are deleted first; then
# `python tools/update_docs.py` writes docs/cost.md. The second command tries all of it on a CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
page=${PAGE:-docs/cost/gpu.md}
python=${PYTHON:-python3}
failures=0

$python -m pytest -q -m gpu tests/mining tests/modeling || failures=1

cost() {  # title, config
    for amp in "" --amp; do
        # shellcheck disable=SC2086
        timeout 90 "$python" benchmarks/step_cost.py --output "$page" --config-file "$2" $amp \
            --title "$1 on a GPU${amp:+, mixed precision}" --images 2 --size 800 1216 --rounds 20 \
            --candidates 1000 512 ${ARGUMENTS:-} || failures=1
    done
}

mkdir -p "$(dirname "$page")"
cat > "$page" <<'END'
# Costs as they were measured on a GPU

The sections are as `benchmarks/gpu.sh` wrote them. [What does it cost?](../cost.md#on-a-gpu) sums
them up.
END
cost "Faster R-CNN, R50-FPN" COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml
cost "Mask R-CNN, R50-FPN" COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml
cost "Faster R-CNN, R50-C4" COCO-Detection/faster_rcnn_R_50_C4_1x.yaml
cost "Cascade Mask R-CNN, R50-FPN" Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml
exit $failures
