#!/usr/bin/env bash
# A BLIP pretrained on emoji of which 40 % have the captions of others; a captioner and a filter
# fine-tuned from it on a clean fifth; and the three sets that they make of the noisy one.
set -euo pipefail
out=runs/capfilt_emoji
train="{'kind': 'tfds', 'name': 'emoji', 'split': 'train'}"
clean="{'kind': 'part', 'source': $train, 'start': 0.0, 'stop': 0.2}"
rest="{'kind': 'part', 'source': $train, 'start': 0.2, 'stop': 1.0}"
noisy="{'kind': 'swapped', 'source': $rest, 'fraction': 0.4}"

blip() {  # NAME STEPS SOURCE [settings]
    python -m mmjax.train --config=configs/blip_emoji.py --workdir="$out/$1" \
        --config.total_steps="$2" --config.checkpoint.every="$2" --config.data.train="$3" \
        --config.evals="{}" --config.validation="()" "${@:4}"
}
capfilt() {  # NAME [models]
    python -m experiments.capfilt --config=configs/blip_emoji.py --config.data.train="$noisy" \
        --target="$out/$1" --max_new_tokens=15 "${@:2}"
}

blip pretrained 300 "$noisy"
from=("--config.init_from.path=$out/pretrained" --config.optim.learning_rate=5e-4
    --config.loss.alpha=0.4)
blip captioner 100 "$clean" "${from[@]}" --config.loss_weights="{'captioning': 1.0}"
blip filter 100 "$clean" "${from[@]}" --config.loss_weights="{'contrastive': 1.0, 'matching': 1.0}"
capfilt filtered --filter="$out/filter"
capfilt captioned --captioner="$out/captioner"
capfilt both --captioner="$out/captioner" --filter="$out/filter"
