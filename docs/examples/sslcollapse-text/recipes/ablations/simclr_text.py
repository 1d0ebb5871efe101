"""SimCSE on docstrings, beside stronger views by word deletion: five seeds each."""

ablation = dict(
    name="simclr_text",
    base="../simclr_text.py",
    axes={"domain.views.word_deletion": [0.0, 0.3]},
    seeds=5,
    baseline={"domain.views.word_deletion": 0.0},
)
