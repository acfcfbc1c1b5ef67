"""What every package may use: errors meant for people, files written whole, paths as people read them. Without TFX."""
