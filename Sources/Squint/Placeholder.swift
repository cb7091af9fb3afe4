// Sources of Squint.
