"""Pusher: copies blessed models into a folder of numbered versions, each as a whole or not at all."""
