print("squint")
