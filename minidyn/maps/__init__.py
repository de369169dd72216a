"""What an optimizer does: a loss, a rule and its noise are one discrete step, run exactly as it is."""
