#!/usr/bin/env bash
# A BLIP pretrained on emoji of which 40 % have the captions of others; a captioner and a filter
# fine-tuned from it on the clean part; and the three sets that they make of the noisy part.
set -euo pipefail
out=runs/capfilt_emoji
train="{'kind': 'tfds', 'name': 'emoji', 'split': 'train'}"
clean="{'kind': 'part', 'source': $train, 'start': 0.0, 'stop': 0.3}"
rest="{'kind': 'part', 'source': $train, 'start': 0.3, 'stop': 1.0}"
noisy="{'kind': 'swapped', 'source': $rest, 'fraction': 0.4}"

blip() {  # NAME STEPS SOURCE [settings]
    # With hard negatives matching stays at chance for these few steps: ../blip_albef_emoji.md.
    python -m mmjax.train --config=configs/blip_emoji.py --workdir="$out/$1" \
        --config.total_steps="$2" --config.checkpoint.every="$2" --config.data.train="$3" \
        --config.model.hard_negatives=False --config.evals="{}" --config.validation="()" "${@:4}"
}
capfilt() {  # NAME [models]
    python -m experiments.capfilt --config=configs/blip_emoji.py --config.data.train="$noisy" \
        --target="$out/$1" --max_new_tokens=15 "${@:2}"
}

blip pretrained 600 "$noisy"
from=("--config.init_from.path=$out/pretrained" --config.optim.learning_rate=5e-4
    --config.ema.decay=0.98 --config.loss.alpha=0.4)
blip captioner 200 "$clean" "${from[@]}" --config.loss_weights="{'captioning': 1.0}"
blip filter 300 "$clean" "${from[@]}" --config.loss_weights="{'contrastive': 1.0, 'matching': 1.0}"
capfilt filtered --filter="$out/filter"
capfilt captioned --captioner="$out/captioner"
capfilt both --captioner="$out/captioner" --filter="$out/filter"
