"""What bodies and their fields are made of: codings, lists, locations. Pure but for the libraries that compress."""
