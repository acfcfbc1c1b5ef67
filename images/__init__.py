"""What a data set is, and how its files are read and become examples. No TFX component is in here."""
