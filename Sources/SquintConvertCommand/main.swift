print("squint-convert")
