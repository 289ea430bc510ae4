#!/usr/bin/env bash
# What needs a GPU, in ten minutes at most: its tests, then what mining costs a step there.
#
#     bash benchmarks/gpu.sh
#     PAGE=output/gpu.md LIMIT=600 \
#     ARGUMENTS="--size 64 64 --proposals 100 --rounds 1 -- MODEL.DEVICE cpu" bash benchmarks/gpu.sh
#
# The tables replace docs/cost/gpu.md, if nothing failed; then `python tools/update_docs.py`
# writes docs/cost.md. With DATA=FOLDER, where there are train.json, test.json and images, two small
# models are trained as well. LIMIT is the most seconds that one of the costs may take. The second
# command tries all of it on a CPU; with DATA, add
# SETTINGS="MODEL.DEVICE cpu SOLVER.MAX_ITER 2".
set -uo pipefail
cd "$(dirname "$0")/.."
page=${PAGE:-docs/cost/gpu.md}
python=${PYTHON:-python3}
limit=${LIMIT:-60}
failures=0
measured=$(mktemp)

$python -m pytest -q -m gpu tests/mining tests/modeling || failures=1

cost() {  # title, config
    for amp in "" --amp; do
        # shellcheck disable=SC2086
        timeout "$limit" "$python" benchmarks/step_cost.py --output "$measured" --config-file "$2" \
            $amp --title "$1 on a GPU${amp:+, mixed precision}" --images 2 --size 800 1216 \
            --rounds 20 --candidates 1000 512 ${ARGUMENTS:-} && continue
        echo "failed, or took more than $limit seconds: $1 $amp"
        failures=1
    done
}

cat > "$measured" <<'END'
# Costs as they were measured on a GPU

The sections are as `benchmarks/gpu.sh` wrote them. [What does it cost?](../cost.md#on-a-gpu) sums
them up.
END
cost "Faster R-CNN, R50-FPN" COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml
cost "Mask R-CNN, R50-FPN" COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml
cost "Faster R-CNN, R50-C4" COCO-Detection/faster_rcnn_R_50_C4_1x.yaml
cost "Cascade Mask R-CNN, R50-FPN" Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml
mkdir -p "$(dirname "$page")"
# The old page stays where something failed: other pages quote it.
costs=$page
if ((failures)); then costs="$page.failed"; fi
cat "$measured" > "$costs"
rm "$measured"
echo "written: $costs"

if [[ -n ${DATA:-} ]]; then
    # shellcheck disable=SC2086
    timeout "$((limit + 140))" "$python" benchmarks/accuracy.py --points 5 --seeds 0 --variants sampling half_random \
        --output "${page%.md}_accuracy" --add "$(basename "$DATA")" \
        configs/small/faster_rcnn_lite0_FPN_ohem.yaml MODEL.DEVICE cuda \
        DATASETS.TRAIN "coco://$DATA/train.json?images=$DATA/images" \
        DATASETS.TEST "coco://$DATA/test.json?images=$DATA/images" ${SETTINGS:-} || failures=1
fi
exit $failures
