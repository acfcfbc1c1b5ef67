"""A pushed model at work: it answers, explains and scores images, and is registered."""
