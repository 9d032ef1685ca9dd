"""How often each label is drawn where none is asked for: words of requests, claims and the runtime alike."""

EQUAL, TRAINING = "equal", "training"
"""All labels in turn; as often as the training images have them."""
BALANCES = (EQUAL, TRAINING)
