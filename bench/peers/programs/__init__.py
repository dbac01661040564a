"""The proxies that have to be written before they can be compared: each as short as its library lets it be."""
