#!/usr/bin/env bash
# On a machine with a CUDA GPU, in under 9 minutes: the tests of decoders and of resuming, run there, then training speed
# beside nanoGPT's recipe and Hugging Face's GPT-2. Without a GPU everything runs in small on the processor, in under a
# minute. Uses the `python` that is there (PYTHON=... for another), with the project and transformers installed.
#
#     bash benchmarks/gpu.sh [FOLDER]      writes FOLDER/tests.txt, FOLDER/gpu.md and FOLDER/gpu.json (out/gpu)

set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python}
out=${1:-out/gpu}
mkdir -p "$out"
device=$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")') || exit 1
failed=0

if [ "$device" = cuda ]; then
    tests=(tests/decoders tests/training)
    which=(-k "decoders or put_away or resume")
    measure=(--seconds 300)
else
    export OMP_NUM_THREADS=1
    tests=(tests/decoders/test_contract.py)  # compiling takes the rest of the minute
    which=(-k "chunks_equal_one_long_call or packed_pieces")
    measure=(--small --seconds 60)
fi

echo "Tests on $device"
MUSICGEN_TEST_DEVICE=$device timeout 200 "$python" -m pytest "${tests[@]}" "${which[@]}" -q -p no:cacheprovider \
    >"$out/tests.txt" 2>&1 || failed=1
tail -n 15 "$out/tests.txt"

timeout 330 "$python" benchmarks/gpu.py --device "$device" "${measure[@]}" --out "$out/gpu.md" --json "$out/gpu.json" \
    || failed=1
exit $failed
