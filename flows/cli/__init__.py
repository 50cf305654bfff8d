"""The commands, by what people do with them. Each parses, calls one function, prints; heavy imports wait for the one that needs them."""
