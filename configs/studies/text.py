"""Beyond images: eight tasks on sentences of a made-up language, with small transformers that were made on the spot.

python tools/study.py text
"""

tasks = dict(subject={}, agent={}, number={}, tense={}, sentiment={}, voice={}, adjectives={}, action={})
sentences = dict(train=4000, unlabelled=1000, test=1000)
encoder = dict(width=64, depth=2, heads=4)
base = dict(steps=6000, batch_size=32, lr=3e-3)
experts = dict(steps=400, batch_size=32, lr=5e-3, encoder_lr_scale=0.05)
adaptation = dict(rounds=300, batch_size=32, balance="none")  # losses have one scale, and may end near 0
study = dict(
    type="text", seeds=3, cost="27 runs of about 10 s on one core, and two minutes for base and experts of a seed"
)
quick = {
    "study.seeds": 2,
    "study.tasks": ["subject", "tense", "sentiment"],
    "sentences.train": 2000,
    "sentences.unlabelled": 400,
    "sentences.test": 400,
    "base.steps": 1500,
    "experts.steps": 250,
    "adaptation.rounds": 100,
}
