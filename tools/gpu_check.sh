#!/usr/bin/env bash
# Everything that only a GPU can show, in one command and within ten minutes: the checklist, the test suite on the
# device, MNIST and CIFAR-10 to their accuracy, then benchmarks beside PyTorch. Every part has a time limit; what fails
# or runs out does not stop the rest.
#
#     tools/gpu_check.sh [FOLDER]        logs, tables and summary.txt go to FOLDER (default: tools/results/<date>-<GPU>)
#
# PYTHON chooses the interpreter: one with netrun-trainer[cuda13], pytest, and for the comparison torch. PERCENT scales
# all time limits: 300 gives every part three times as long, for tables without gaps. DATA is the folder with mnist/ and
# cifar10/ as they are fetched (default: ../shared/data); without it, and without databases in configs/, both are left out.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

percent=${PERCENT:-100}
gpu=$(timeout 60 "$python" - <<'END'
import sys
from netrun.device import open_device
from netrun.errors import NetrunError

try:
    print(open_device("cuda:0").chip.replace(" ", "-"))
except NetrunError as error:
    sys.exit(f"no GPU to check: {error}")
END
) || exit 2
out=${1:-tools/results/$(date -u +%Y%m%d-%H%M)-$gpu}
mkdir -p "$out"
: >"$out/summary.txt"
failed=0

# part NAME SECONDS COMMAND...
part() {
    local name=$1 limit=$(($2 * percent / 100)) begin=$SECONDS status
    shift 2
    printf '== %s\n' "$name"
    timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    case $status in
    0) verdict=passed ;;
    77) verdict="left out, no data" status=0 ;;
    124 | 137) verdict="out of time ($limit s)" ;;
    *) verdict="failed ($status)" ;;
    esac
    ((status == 0)) || failed=1
    printf '%-16s %-24s %4d s\n' "$name" "$verdict" $((SECONDS - begin)) | tee -a "$out/summary.txt"
}

{
    git rev-parse HEAD 2>/dev/null
    "$python" --version
    timeout 20 nvidia-smi 2>/dev/null
} >"$out/machine.txt"

accuracy=("$python" tools/gpu/accuracy.py --data "${DATA:-../shared/data}")
for name in mnist cifar10; do # on the CPU, while the GPU has its first tests
    timeout 120 "${accuracy[@]}" $name --prepare >"$out/$name-data.log" 2>&1 &
done

part devices 15 "$python" -m netrun devices
part checklist 75 "$python" tools/gpu/checklist.py --properties "$out/device_properties.json"
part suite 120 "$python" tools/gpu/suite.py --out "$out/suite"
wait
part mnist 30 "${accuracy[@]}" mnist
part cifar10 30 "${accuracy[@]}" cifar10
export NETRUN_CUDA_TUNE=1 # as cudnn.benchmark, which PyTorch has on
part small 45 "$python" tools/gpu/bench.py --out "$out/small" --seconds $((36 * percent / 100)) --nets lenet,cifar10_quick --no-compile
part single 30 "$python" tools/gpu/bench.py --out "$out/single" --seconds $((24 * percent / 100)) --nets resnet50,googlenet,alexnet \
    --batch 1 --work forward --precisions FP32,BF16 --rounds 100
part sequence 30 "$python" tools/gpu/bench.py --out "$out/sequence" --seconds $((24 * percent / 100)) --nets lstm,transformer \
    --precisions TF32,BF16 --work both --rounds 10
part recurrent 15 env NETRUN_CUDA_RNN=cudnn "$python" tools/gpu/bench.py --out "$out/recurrent" --nets lstm --no-torch \
    --precisions TF32,BF16 --work both --rounds 10
part nets 210 "$python" tools/gpu/bench.py --out "$out/nets" --seconds $((190 * percent / 100)) --work both,train,forward \
    --nets resnet50,alexnet,vgg_a,googlenet,overfeat,googlenet_train --precisions TF32,BF16,FP32

cat "$out"/{small,single,sequence,recurrent,nets}/table.md 2>/dev/null
cat "$out/summary.txt"
exit $failed
