"""How good the new model is: win rates with intervals, reward accuracy, scorers."""
