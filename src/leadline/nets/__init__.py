"""Function approximators and their layers; they know nothing of data, likelihoods or training."""
