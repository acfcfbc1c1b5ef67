"""What every package may use, without TFX: errors for users, files that are written whole, short paths, texts as shown."""
