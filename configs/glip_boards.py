"""OWL-ViT on ktuberling's boards with GLIP's contrast of regions and words beside its queries.

    python -m mmjax.train --config=configs/glip_boards.py --workdir=runs/glip_boards

As `owlvit_boards`, with one loss more: each box is also compared with every word of the names,
which are its positives where it is matched with an object of that name (GLIP, Li et al. 2021, arXiv
2112.03857, section 3.1). What is detected are the queries, as there. Expected: not measured yet.
"""

from configs import owlvit_boards


def get_config():
    """The config of this experiment."""
    config = owlvit_boards.get_config()
    config.model.text_tokens = True
    config.loss_weights.region_words = 1.0
    return config
