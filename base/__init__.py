"""What every package may use, without TFX: errors meant for users, files that are written as a whole, short paths, texts as they are shown."""
