#!/usr/bin/env bash
# The whole road in one command: installs, makes a small world, trains the nano model on it for a few minutes,
# scores it and the shipped model on clips neither has seen, and describes a video.
#
#   ./launch/quickstart.sh            a generated video
#   ./launch/quickstart.sh my.mp4     yours, by published weights for real video (8 MB, fetched once; without internet
#                                     WEIGHTS_DIR=/path names a folder that has them, else the shipped model does it)
#
# About ten minutes on two processor cores after the installation. Running it again goes on where it stopped.
# STEPS=2000 trains longer; OUT=/path puts the results elsewhere (default: quickstart/ in the checkout).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

case "${1:-}" in
  -h | --help)
    sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
    ;;
esac
trap 'exit 130' INT  # training saves and ends well on Ctrl-C; the rest should not follow
video="${1:-}"
[ $# -le 1 ] || fail "wanted at most one video, got $#"
if [ -n "$video" ]; then
  [ -f "$video" ] || fail "no such file: $video"
  video="$(cd "$(dirname "$video")" && pwd)/$(basename "$video")"
fi
weights="${WEIGHTS_DIR:-}"
if [ -n "$weights" ]; then
  [ -d "$weights" ] || fail "no such folder: $weights"
  weights="$(cd "$weights" && pwd)"
fi
out="${OUT:-$ROOT/quickstart}"
steps="${STEPS:-300}"
mkdir -p "$out" || fail "cannot write $out"
out="$(cd "$out" && pwd)"

prepare_environment
cd "$ROOT"
ssu() { "$VENV/bin/python" -m ssu_jax.cli.main "$@"; }
say() { printf '\n== %s\n' "$*"; }

say "1 of 5: a world of sounding objects ($out/data)"
make_split() { # NAME CLIPS SHARDS; the manifest is written last, so a split that has one is whole
  [ -f "$out/data/$1.manifest.json" ] || ssu prepare synthetic --out "$out/data" --split "$1" --num-clips "$2" --num-shards "$3" --seed 7
}
make_split train 600 4
make_split val 32 1
make_split test 64 1
[ -f "$out/world.mp4" ] || ssu prepare synthetic --preview "$out/world.mp4" --seed 7
ssu data verify "$out/data"

say "2 of 5: training the nano model for $steps steps ($out/run)"
ssu train --config configs/nano.py --workdir "$out/run" --config.data.dir="$out/data" \
  --config.train.num_steps="$steps" --config.train.warmup_steps=50 --config.train.log_every_steps=10 \
  --config.eval.every_steps=150 --config.eval.num_clips=32 --config.train.checkpoint_every_steps=100

say "3 of 5: your model on test clips it has never seen"
ssu evaluate --checkpoint "$out/run" --records "$out/data" --split test --out "$out/metrics_yours.json"

say "4 of 5: the shipped model, trained for longer, on the same clips"
ssu evaluate --records "$out/data" --split test --out "$out/metrics_shipped.json"

say "5 of 5: describing a video"
if [ -z "$video" ]; then
  video="$out/generated.mp4"
  [ -f "$video" ] || ssu prepare synthetic --preview "$video" --plain --split test --num-clips 2 --seed 8
  ssu predict "$video" --model ssuformer --out "$out/predictions"
elif [ -n "$weights" ]; then
  ssu predict "$video" --weights-dir "$weights" --out "$out/predictions"
else
  ssu weights get yamnet deeplab_v3 || echo "no published weights: the shipped model describes the video" >&2
  ssu predict "$video" --out "$out/predictions"
fi
name="$(basename "$video")"
results="$out/predictions/${name%.*}"

say "done"
cat <<E2
  the made world, to see and hear   $out/world.mp4
  your model                        $out/run   (the same command again resumes; tensorboard --logdir $out/run)
  scores of yours and the shipped   $out/metrics_yours.json   $out/metrics_shipped.json
  the video, described              $results/overlay.mp4
  its sentences, masks and scores   $results/captions.vtt   $results/masks   $results/prediction.json
E2
