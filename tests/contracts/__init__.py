"""What every entry of a table must keep to: the new one is tested the moment it is listed."""
